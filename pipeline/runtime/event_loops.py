"""Event loops that wait for all their tasks before they close.

If one of its concurrent reads or writes fails, Orbax closes the event loop while the others still
run. Each of those would later write a traceback to stderr from its own thread.
"""

import asyncio
from types import ModuleType
from typing import Any


class DrainingLoop(asyncio.SelectorEventLoop):
    """A selector event loop whose `close` waits."""

    def close(self) -> None:
        """Waits for the remaining tasks, drops their results and errors, and closes."""
        if not self.is_closed():
            while tasks := asyncio.all_tasks(self):
                self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        super().close()


class _Asyncio(ModuleType):
    """asyncio with another `new_event_loop`."""

    new_event_loop = DrainingLoop

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


def drain(module: ModuleType) -> None:
    """Makes `module` create draining loops by `asyncio.new_event_loop`, in every thread.

    Other modules keep asyncio's own loops: only the name `asyncio` in that module changes.
    """
    vars(module)["asyncio"] = _Asyncio("asyncio")
