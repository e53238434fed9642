import concurrent.futures
import threading
import tracemalloc

import grain
import numpy as np
import pytest

from pipeline.training import order

HUGE = [2**32 - 1, 2**32, 2**32 + 5, 10**10, 2**40, 10**12]


def grains(num, *, seed):
    return grain.MapDataset.range(num).shuffle(seed=seed).repeat(None)


def epoch(num, *, seed, number=0):
    return order.examples(np.arange(num) + number * num, num, seed=seed)


@pytest.mark.parametrize("num", [1, 3, 100, 60_000, 65_536, 70_000, 727_280])
@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_the_order_is_grains(num, seed):
    theirs = grains(num, seed=seed)
    for first in (
        0,
        max(0, num - 20),
        5 * num + 3,
    ):  # inside an epoch, across its end, in a later epoch
        expected = [theirs[k] for k in range(first, first + 50)]
        found = order.examples(np.arange(first, first + 50), num, seed=seed)
        np.testing.assert_array_equal(found, expected)


def few_positions(num):
    drawn = np.random.default_rng(num).integers(0, num, 200)
    return np.unique(np.append(drawn, [0, 1, num - 2, num - 1]))


@pytest.mark.parametrize("num", HUGE)
def test_the_order_of_more_examples_than_32_bits_hold_is_grains(num):
    positions = few_positions(num) + 3 * num
    theirs = grains(num, seed=9)
    found = order.examples(positions, num, seed=9)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, [theirs[int(k)] for k in positions])


def walked(number, num, keys, *, back=False):
    """The same network and walk by Python's own numbers, one at a time, or its inverse."""
    word = 8
    while 4**word < num:
        word += 1

    def turned(half, by):
        return half * 2**by % 2**word + half // 2 ** (word - by)

    while True:
        left, right = divmod(number, 2**word)
        if back:
            left, right = right, left
        for key in keys[::-1] if back else keys:
            mixed = turned(right, 1) & turned(right, 8) ^ turned(right, 2) ^ key % 2**word
            left, right = right, left ^ mixed
        if back:
            left, right = right, left
        number = left * 2**word + right
        if number < num:
            return number


# One more than a power of 4 is where Grain's own shuffle shows one example twice.
@pytest.mark.parametrize("num", [1, 5, 257, 16_385, 65_535, 65_536, 65_537])
def test_the_order_is_that_of_a_walk_by_single_numbers(num):
    keys = order.round_keys(3)
    expected = [walked(position, num, keys) for position in range(num)]
    assert sorted(expected) == list(range(num))
    np.testing.assert_array_equal(epoch(num, seed=3), expected)


@pytest.mark.parametrize("num", [*HUGE, 4**17 + 1, 2**62])
def test_each_example_leads_back_to_its_position(num):
    positions, keys = few_positions(num), order.round_keys(5)
    found = order.examples(positions, num, seed=5).tolist()
    assert found == [walked(position, num, keys) for position in positions.tolist()]
    assert [walked(one, num, keys, back=True) for one in found] == positions.tolist()


@pytest.mark.parametrize("num", [10**8, 10**12])
def test_of_many_neighbouring_positions_no_two_show_the_same_example(num):
    found = order.examples(np.arange(num - 300_000, num), num, seed=1)
    assert 0 <= found.min() <= found.max() < num
    assert len(np.unique(found)) == 300_000


@pytest.mark.parametrize("num", [5, 65_537, 100_003, 262_145])
def test_an_epoch_shows_every_example_once(num):
    np.testing.assert_array_equal(np.sort(epoch(num, seed=3, number=2)), np.arange(num))


def test_epochs_far_apart_and_back_are_the_same():
    first = [epoch(10, seed=1, number=k).tolist() for k in range(8)]
    for k in (7, 0, 2, 1, 6):
        assert epoch(10, seed=1, number=k).tolist() == first[k]
    assert len({tuple(one) for one in first}) == 8


def test_the_seeds_of_epochs_go_on_from_0_after_the_last_of_32_bits():
    np.testing.assert_array_equal(epoch(70_000, seed=2**32 - 1, number=1), epoch(70_000, seed=0))


# Fewer rows than a block, rows that do not divide it, more rows than a block, and few examples.
@pytest.mark.parametrize(
    ("num_examples", "num"), [(70_000, 64), (200_000, 3000), (100_000, 20_000), (10, 4), (3, 8)]
)
def test_the_rows_of_steps_are_those_positions_for_any_block(num_examples, num):
    first, stride = 5 * num, 3 * num  # as on the third of three processes, or so
    shuffled = order.Shuffled(num_examples, seed=2, first=first, num=num, stride=stride)
    for step in (0, 1, 2, 17, 400, 5, 10**9):
        positions = first + step * stride + np.arange(num)
        found = shuffled.rows(step)
        np.testing.assert_array_equal(found, order.examples(positions, num_examples, seed=2))
        found[:] = -1  # which must not reach what the next call returns
        assert shuffled.rows(step).min() >= 0


def test_threads_that_read_ahead_over_turns_of_epochs_find_the_same():
    def make():
        return order.Shuffled(70_000, seed=4, first=0, num=256, stride=256)

    steps = range(1200)
    expected, shared = [make().rows(step) for step in steps[::60]], make()
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = list(threads.map(shared.rows, steps))
    np.testing.assert_array_equal(found[::60], expected)
    stream = np.concatenate(found)
    for k in range(4):
        seen = np.sort(stream[k * 70_000 : (k + 1) * 70_000])
        np.testing.assert_array_equal(seen, np.arange(70_000))


def test_a_thread_that_computes_keeps_no_other_from_its_rows(monkeypatch):
    shuffled = order.Shuffled(10**6, seed=4, first=0, num=64, stride=64)
    shuffled.rows(0)
    whole, begun, may_end = order.examples, threading.Event(), threading.Event()

    def held(*args, **kwargs):
        begun.set()
        assert may_end.wait(30)
        return whole(*args, **kwargs)

    monkeypatch.setattr(order, "examples", held)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        far = threads.submit(shuffled.rows, 10**6)
        assert begun.wait(30)
        assert len(threads.submit(shuffled.rows, 1).result(timeout=30)) == 64
        assert not far.done()
        may_end.set()
        assert len(far.result(timeout=30)) == 64


def test_neither_memory_nor_work_grows_with_the_number_of_examples(monkeypatch):
    encrypted, numbers = order.encrypted, []

    def counted(some, word, keys):
        numbers.append(len(some))
        return encrypted(some, word, keys)

    monkeypatch.setattr(order, "encrypted", counted)
    for num in (10**6, 10**12):
        shuffled = order.Shuffled(num, seed=1, first=num - 3200, num=64, stride=64)
        numbers.clear()
        tracemalloc.start()
        for step in range(100):  # over the turn of an epoch
            shuffled.rows(step)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4e6
        assert sum(numbers) < 4.2 * order.BLOCK
