"""The maximum mean discrepancy, against loops over pairs of true samples."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pipeline.nn.aggregate_posterior import discrepancy

LATENTS = 3
Z, PRIOR = np.random.default_rng(0).normal(size=(2, 6, LATENTS))


def kernel(name, one, other):
    square = math.dist(one, other) ** 2
    if name == "rbf":
        return math.exp(-square / 9)
    widths = (0.6, 1.2, 3.0, 6.0, 12.0, 30.0, 60.0)
    return sum(width / (width + square) for width in widths)


def found(name, mask, z=Z, prior=PRIOR):
    arrays = (jnp.float32(x) for x in (z, prior, mask))
    parts = discrepancy.mmd(*arrays, discrepancy.KERNELS[name])
    return float((parts * jnp.float32(mask)).sum() / sum(mask))


@pytest.mark.parametrize("name", ["rbf", "imq"])
@pytest.mark.parametrize("mask", [(1, 1, 1, 1, 1, 1), (1, 0, 1, 1, 0, 1), (0, 1, 0, 0, 1, 0)])
def test_the_estimate_is_the_mean_over_pairs_of_true_samples(name, mask):
    rows = [i for i in range(6) if mask[i]]
    pairs = [(i, j) for i in rows for j in rows]
    apart = [(i, j) for i, j in pairs if i != j]
    expected = (
        np.mean([kernel(name, Z[i], Z[j]) for i, j in apart])
        + np.mean([kernel(name, PRIOR[i], PRIOR[j]) for i, j in apart])
        - 2 * np.mean([kernel(name, Z[i], PRIOR[j]) for i, j in pairs])
    )
    np.testing.assert_allclose(found(name, mask), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["rbf", "imq"])
def test_the_estimate_has_no_bias_and_grows_with_the_distance(name):
    random = np.random.default_rng(1)
    draws = random.normal(size=(2, 2000, 5, LATENTS)).astype(np.float32)
    estimate = jax.vmap(lambda z, p: discrepancy.mmd(z, p, jnp.ones(5), discrepancy.KERNELS[name]))

    def mean_and_error(z, prior):
        values = np.asarray(estimate(z, prior)).mean(axis=1)
        return values.mean(), values.std() / np.sqrt(len(values))

    mean, error = mean_and_error(*draws)
    assert abs(mean) < 4 * error
    further = [mean_and_error(draws[0] + shift, draws[1])[0] for shift in (0.5, 1.0)]
    assert 4 * error < further[0] < further[1]


@pytest.mark.parametrize("name", ["rbf", "imq"])
def test_a_gaussian_kernel_and_its_gradient_are_finite_for_equal_samples(name):
    same = np.zeros((6, LATENTS))
    assert abs(found(name, (1,) * 6, same, same)) < 1e-6
    slope = jax.grad(lambda z: discrepancy.mmd(z, z, jnp.ones(6), discrepancy.KERNELS[name]).mean())
    np.testing.assert_array_equal(slope(jnp.zeros((6, LATENTS))), 0.0)


def test_one_true_example_has_a_finite_estimate():
    alone = found("rbf", (0, 1, 0, 0, 0, 0))
    np.testing.assert_allclose(alone, -2 * kernel("rbf", Z[1], PRIOR[1]), rtol=1e-5)
