import grain
import numpy as np
import pytest

from pipeline.training import order


@pytest.mark.parametrize("num", [1, 3, 100, 60_000, 65_536, 70_000, 727_280])
@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_the_order_is_grains(num, seed):
    theirs = grain.MapDataset.range(num).shuffle(seed=seed).repeat(None)
    shuffled = order.Shuffled(num, seed=seed)
    for first in (
        0,
        max(0, num - 20),
        5 * num + 3,
    ):  # inside an epoch, across its end, in a later epoch
        expected = [theirs[k] for k in range(first, first + 50)]
        np.testing.assert_array_equal(shuffled.rows(first, 50), expected)


@pytest.mark.parametrize("num", [5, 65_537, 100_003])
def test_an_epoch_shows_every_example_once(num):
    rows = order.Shuffled(num, seed=3).rows(2 * num, num)
    np.testing.assert_array_equal(np.sort(rows), np.arange(num))


def test_epochs_far_apart_and_back_are_the_same():
    shuffled = order.Shuffled(10, seed=1)
    first = [shuffled.rows(epoch * 10, 10).tolist() for epoch in range(4)]
    assert [shuffled.rows(epoch * 10, 10).tolist() for epoch in (3, 0, 2, 1)] == [
        first[epoch] for epoch in (3, 0, 2, 1)
    ]
