"""Event loops that see all their tasks end before they close.

When one of its concurrent reads or writes fails, Orbax closes the event loop under the others. Each
of those would then write a traceback to stderr, from a thread of its own and at any later time.
"""

import asyncio
import contextlib
from collections.abc import Iterator


class DrainingLoop(asyncio.SelectorEventLoop):
    """A selector loop with another `close`."""

    def close(self) -> None:
        """Waits for the tasks that are left, then closes; what they return or raise is dropped."""
        if not self.is_closed():
            while tasks := asyncio.all_tasks(self):
                self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        super().close()


@contextlib.contextmanager
def draining() -> Iterator[None]:
    """Event loops that are made meanwhile drain, in whatever thread."""
    usual = asyncio.new_event_loop
    asyncio.new_event_loop = DrainingLoop
    try:
        yield
    finally:
        asyncio.new_event_loop = usual
