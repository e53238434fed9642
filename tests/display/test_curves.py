import numpy as np
import pytest

from pipeline.display import curves, pictures


def ink(images):
    """Returns the highest and the lowest row with ink in each column, of the first image."""
    inked = curves.drawn(images)[0, ..., 0] == 0
    assert inked.any(axis=0).all()
    return inked.argmax(axis=0), inked.shape[0] - 1 - inked[::-1].argmax(axis=0)


@pytest.mark.parametrize("length", [2, 64, 193, 5000])
def test_a_ramp_rises_from_the_lower_left_to_the_upper_right(length):
    high, low = ink(np.linspace(0, 1, length, dtype=np.float32).reshape(1, length, 1, 1))
    assert (low[0], high[-1]) == (63, 0)
    assert (np.diff(high) <= 0).all() and (low - high <= 1).all()


def test_a_single_peak_of_a_long_signal_is_seen():
    signal = np.zeros((1, 1000, 1, 1), np.float32)
    signal[0, 500] = 1
    high, low = ink(signal)
    assert high.min() == 0 and low.max() == 63
    assert (high == 0).sum() <= 3 and abs(int(high.argmin()) - 96) <= 2


def test_values_outside_the_unit_interval_are_drawn_at_the_edge():
    high, low = ink(np.array([-1.0, np.nan, 2.0], np.float32).reshape(1, 3, 1, 1))
    assert (low[0], high[-1]) == (63, 0)


def test_three_channels_are_curves_in_red_green_and_blue():
    signal = np.stack([np.full(9, value, np.float32) for value in (0.0, 0.5, 1.0)], axis=-1)
    found = curves.drawn(signal[None, :, None])[0]
    np.testing.assert_array_equal(found[63, 0], [1, 0, 0])
    np.testing.assert_array_equal(found[32, 0], [0, 1, 0])
    np.testing.assert_array_equal(found[0, 0], [0, 0, 1])
    np.testing.assert_array_equal(found[16, 0], [1, 1, 1])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((28, 28, 1), (56, 56, 1)),
        ((64, 64, 3), (64, 64, 3)),
        ((8, 256, 3), (16, 512, 3)),  # the long side stays below 512
        ((8, 2048, 3), (8, 2048, 3)),
        ((1, 1, 3), (56, 56, 3)),
        ((128, 1, 1), (64, 192, 1)),
        ((1, 128, 5), (64, 192, 3)),
    ],
)
def test_images_are_enlarged_and_signals_become_curves(shape, expected):
    assert pictures.enlarged(np.zeros((2, *shape), np.float32)).shape == (2, *expected)
