"""An event loop closes when its tasks have ended, also those that a failure left behind."""

import asyncio

import pytest

from pipeline.runtime.event_loops import draining


async def fail(message):
    await asyncio.sleep(0)
    raise OSError(message)


def run(coroutine):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


def test_reads_that_a_failed_one_leaves_behind_end_before_the_loop_closes():
    ended = []

    async def read(number):
        for _ in range(number):
            await asyncio.sleep(0)
        ended.append(number)

    async def read_all():
        await asyncio.gather(fail("damaged"), read(3), read(300), fail("damaged, too"))

    with draining(), pytest.raises(OSError, match=r"^damaged$"):
        run(read_all())
    assert ended == [3, 300]


def test_the_usual_loops_come_back():
    usual = asyncio.new_event_loop
    with pytest.raises(OSError), draining():
        raise OSError
    assert asyncio.new_event_loop is usual
