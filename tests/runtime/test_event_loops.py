"""An event loop closes after its tasks have ended, also those that a failure left running."""

import asyncio
import types

import pytest

from pipeline.runtime import event_loops


async def fail(message):
    await asyncio.sleep(0)
    raise OSError(message)


# A library that starts and closes an event loop of its own.
LIBRARY = """
import asyncio

def run(coroutine):
    loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(coroutine)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
"""


@pytest.fixture
def library():
    module = types.ModuleType("library")
    exec(LIBRARY, vars(module))
    return module


def test_reads_that_a_failed_one_leaves_behind_end_before_the_loop_closes(library):
    ended = []

    async def read(number):
        for _ in range(number):
            await asyncio.sleep(0)
        ended.append(number)

    async def read_all():
        await asyncio.gather(fail("damaged"), read(3), read(300), fail("damaged, too"))

    event_loops.drain(library)
    with pytest.raises(OSError, match=r"^damaged$"):
        library.run(read_all())
    assert ended == [3, 300]


def test_only_the_loops_of_that_module_drain(library):
    usual = asyncio.new_event_loop
    event_loops.drain(library)
    event_loops.drain(library)
    assert asyncio.new_event_loop is usual
    assert library.asyncio.new_event_loop is event_loops.DrainingLoop
    assert library.asyncio.CancelledError is asyncio.CancelledError
