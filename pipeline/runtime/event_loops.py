"""Event loops that see all their tasks end before they close.

When one of its concurrent reads or writes fails, Orbax closes the event loop under the others. Each
of those would then write a traceback to stderr, from a thread of its own and at any later time.
"""

import asyncio
from types import ModuleType
from typing import Any


class DrainingLoop(asyncio.SelectorEventLoop):
    """A selector loop with another `close`."""

    def close(self) -> None:
        """Waits for the tasks that are left, then closes; what they return or raise is dropped."""
        if not self.is_closed():
            while tasks := asyncio.all_tasks(self):
                self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        super().close()


class _Asyncio(ModuleType):
    """asyncio, but for the loops that it makes."""

    new_event_loop = DrainingLoop

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


def drain(module: ModuleType) -> None:
    """Lets the loops drain that `module` makes by `asyncio.new_event_loop`, in whatever thread.

    Nobody else's do: only the name `asyncio` in that module stands for another one.
    """
    vars(module)["asyncio"] = _Asyncio("asyncio")
