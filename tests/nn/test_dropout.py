"""Dropout: the share it drops, the scale of the rest, and whose draws are whose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pipeline.nn.autoregressive import dropout

LEVELS = 256


def kept(rate, shape, *, seed=0):
    """Returns what dropout leaves of ones, [B, ...]."""
    keys = jax.random.split(jax.random.key(seed), shape[0])
    return np.asarray(dropout.make(rate, keys)(jnp.ones(shape)))


@pytest.mark.parametrize("shape", [(64, 49, 128), (97, 5, 7, 3), (501, 1)])
def test_the_share_that_is_dropped_is_the_rate_in_256ths(shape):
    values = kept(0.1, shape)
    dropped = round(0.1 * LEVELS)
    assert set(np.unique(values)) == {0.0, np.float32(LEVELS / (LEVELS - dropped))}
    test = stats.binomtest(int((values == 0).sum()), values.size, dropped / LEVELS)
    assert test.pvalue > 1e-3


def test_neighbours_are_dropped_independently():
    # Four draws come from one random word, so each of them is compared with the next three.
    lost = kept(0.5, (64, 49, 128)).reshape(64, -1, 4) == 0
    for one in range(4):
        for other in range(one):
            table = np.histogram2d(*(lost[..., i].ravel() for i in (one, other)), bins=2)[0]
            assert stats.chi2_contingency(table).pvalue > 1e-3


def test_an_example_keeps_its_draws_in_any_batch_and_each_call_draws_others():
    keys = jax.random.split(jax.random.key(1), 4)
    drop, ones = dropout.make(0.5, keys), jnp.ones((4, 6, 5))
    first, second = drop(ones), drop(ones)
    np.testing.assert_array_equal(first[2:], dropout.make(0.5, keys[2:])(ones[2:]))
    assert (first != second).any() and (first[0] != first[1]).any()


def test_a_rate_of_zero_changes_nothing():
    assert dropout.make(0.0, jax.random.split(jax.random.key(0), 2)) is dropout.none
