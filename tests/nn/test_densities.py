"""The estimates of log q(z), against sums written out in NumPy and against the exact mixture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pipeline.nn.aggregate_posterior import densities

N, BATCH, LATENTS = 50, 6, 3
RANDOM = np.random.default_rng(0)
Z, MEAN, LOG_VARIANCE = RANDOM.normal(size=(3, BATCH, LATENTS))


def density(i, j):
    """Returns q(z_i,d | n_j) for each latent d."""
    variance = np.exp(LOG_VARIANCE[j])
    return np.exp(-((Z[i] - MEAN[j]) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def weight(name, i, j, rows):
    """Returns the weight of example j in the estimate for example i; `rows` are true."""
    if name == "weighted":
        return 1 / (N * len(rows))
    m = len(rows) - 1
    if i == j:
        return 1 / N
    after = rows[(rows.index(i) + 1) % len(rows)]
    return (N - m) / (N * m) if j == after else 1 / m


@pytest.mark.parametrize("name", ["weighted", "stratified"])
@pytest.mark.parametrize("mask", [(1, 1, 1, 1, 1, 1), (1, 1, 1, 0, 1, 0), (0, 1, 1, 0, 0, 0)])
def test_the_estimates_are_the_papers_sums_over_true_examples(name, mask):
    given = jnp.float32(mask)
    log_weights = densities.ESTIMATORS[name](given, N)
    joint, each = densities.log_densities(
        *(jnp.float32(x) for x in (Z, MEAN, LOG_VARIANCE)), log_weights
    )
    assert np.isfinite(joint).all()
    assert np.isfinite(each).all()
    rows = [i for i in range(BATCH) if mask[i]]
    for i in rows:
        weights = np.array([weight(name, i, j, rows) for j in rows])
        of_pairs = np.array([density(i, j) for j in rows])
        expected = np.log(weights @ of_pairs.prod(axis=1))
        np.testing.assert_allclose(joint[i], expected, rtol=1e-5)
        np.testing.assert_allclose(each[i], np.log(weights @ of_pairs), rtol=1e-5, atol=1e-6)


def test_stratified_weights_of_an_example_add_up_to_one_and_weighted_ones_to_1_over_n():
    mask = jnp.float32([1, 0, 1, 1, 1, 0])
    for name, expected in (("stratified", 1.0), ("weighted", 1 / N)):
        sums = jnp.exp(densities.ESTIMATORS[name](mask, N)).sum(axis=1)
        np.testing.assert_allclose(sums[mask > 0], expected, rtol=1e-6)


def test_stratified_is_unbiased():
    log_weights = densities.stratified(jnp.ones(BATCH), BATCH)
    estimates = []
    # Each order of a batch of the whole data set gives another example the small weight.
    for shift in range(BATCH - 1):
        order = np.array([0, *np.roll(range(1, BATCH), shift)])
        arrays = (jnp.float32(x[order]) for x in (Z, MEAN, LOG_VARIANCE))
        estimates.append(np.exp(densities.log_densities(*arrays, log_weights)[0][0]))
    mixture = np.mean([density(0, j).prod() for j in range(BATCH)])
    np.testing.assert_allclose(np.mean(estimates), mixture, rtol=1e-5)
    assert np.std(estimates) > 0.01 * mixture


@pytest.mark.parametrize("rows", [1, 4, 6])
def test_chunks_of_rows_have_the_same_values_and_gradients(rows, monkeypatch):
    given = [jnp.float32(x) for x in (Z, MEAN, LOG_VARIANCE)]
    log_weights = densities.stratified(jnp.float32([1, 0, 1, 1, 1, 1]), N)

    def total(given):
        joint, each = densities.log_densities(*given, log_weights)
        return (joint - jnp.cos(each).sum(axis=-1)).sum(), (joint, each)

    expected = jax.value_and_grad(total, has_aux=True)(given)
    monkeypatch.setattr(densities, "PAIRS", rows * BATCH)
    found = jax.value_and_grad(total, has_aux=True)(given)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), found, expected
    )
    # Neither pass holds all pairs, unless they fit.
    program = str(jax.make_jaxpr(jax.grad(total, has_aux=True))(given))
    assert ("f32[6,6,3]" in program) == (rows == BATCH)


def test_one_true_example_has_finite_estimates():
    for estimator in densities.ESTIMATORS.values():
        log_weights = estimator(jnp.float32([0, 1, 0]), N)
        np.testing.assert_allclose(log_weights[1], [-np.inf, -np.log(N), -np.inf], rtol=1e-6)


def test_the_density_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    found = densities.log_normal(*(jnp.float32(x) for x in (Z, MEAN, LOG_VARIANCE)))
    expected = stats.norm.logpdf(Z, MEAN, np.exp(LOG_VARIANCE / 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
