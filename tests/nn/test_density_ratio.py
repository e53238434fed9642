"""The discriminator's parts against NumPy, and its estimate against a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from pipeline.nn import discriminators
from pipeline.nn.aggregate_posterior import density_ratio
from pipeline.runtime import errors

Z = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
KEY = jax.random.key(3)


def permuted(z, key, mask=None):
    mask = jnp.ones(len(z)) if mask is None else mask
    return density_ratio.permuted(z, jax.random.uniform(key, z.shape), mask)


def rows_taken(found, given):
    """Returns for each value the row of `given` that it comes from; all values differ."""
    return np.array([[int(np.flatnonzero(given[:, d] == x)[0]) for d, x in enumerate(row)]
                     for row in np.asarray(found)])  # fmt: skip


def test_each_latent_is_permuted_by_itself():
    rows = rows_taken(permuted(Z, KEY), Z)
    for one in range(5):
        assert sorted(rows[:, one]) == list(range(40))
        for other in range(one):
            assert (rows[:, one] == rows[:, other]).sum() < 10
    another = rows_taken(permuted(Z, jax.random.key(4)), Z)
    assert (another == rows).mean() < 0.1


def test_every_order_is_equally_likely():
    z = np.arange(3, dtype=np.float32)[:, None]
    draw = jax.vmap(lambda key: permuted(z, key)[:, 0])
    orders = np.asarray(draw(jax.random.split(KEY, 6000))).astype(int) @ [100, 10, 1]
    counts = np.unique(orders, return_counts=True)[1]
    assert len(counts) == 6
    np.testing.assert_allclose(counts, 1000, atol=150)  # 5 standard deviations


def test_only_true_examples_are_permuted_and_padding_changes_nothing():
    mask = np.ones(40, np.float32)
    mask[[0, 7, 8, 33, 39]] = 0
    true = np.flatnonzero(mask)
    numbers = np.random.default_rng(1).uniform(size=Z.shape).astype(np.float32)
    damaged = np.where(mask[:, None] > 0, Z, np.nan)
    found = density_ratio.permuted(damaged, np.where(mask[:, None] > 0, numbers, np.nan), mask)
    expected = density_ratio.permuted(Z[true], numbers[true], jnp.ones(35))
    np.testing.assert_array_equal(found[true], expected)


def test_the_discriminator_is_a_perceptron_with_leaky_relu():
    module = density_ratio.Discriminator(5, (7, 6), dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = Z
    for number, layer in enumerate(module.layers):
        x = x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
        x = np.maximum(x, 0.2 * x) if number < 2 else x[:, 0]
    np.testing.assert_allclose(module(Z), x, rtol=1e-4, atol=1e-6)
    frozen = discriminators.frozen(module)
    np.testing.assert_array_equal(frozen(Z), module(Z))


def test_loss_and_accuracy_are_those_of_probabilities():
    true, other = np.float64([2.0, -1.0, 0.5]), np.float64([-3.0, -0.5, 1.0])
    probability = lambda logit: 1 / (1 + np.exp(-logit))  # noqa: E731
    expected = -(np.log(probability(true)) + np.log(1 - probability(other))) / 2
    given = jnp.float32(true), jnp.float32(other)
    np.testing.assert_allclose(discriminators.cross_entropy(*given), expected, rtol=1e-5)
    np.testing.assert_array_equal(discriminators.accuracy(*given), [1.0, 0.5, 0.5])


def test_the_estimate_approaches_the_total_correlation_of_a_gaussian():
    correlation = 0.8
    expected = -0.5 * np.log(1 - correlation**2)
    module = density_ratio.Discriminator(2, (32, 32), dtype=jnp.float32, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(module)
    optimizer = optax.adam(3e-3)
    root = jnp.linalg.cholesky(jnp.array([[1.0, correlation], [correlation, 1.0]]))

    def logits(params, key):
        own, other = jax.random.split(key)
        z = jax.random.normal(own, (1024, 2)) @ root.T
        model = nnx.merge(graphdef, params)
        return model(z), model(permuted(z, other))

    def loss(params, key):
        return discriminators.cross_entropy(*logits(params, key)).mean()

    def turn(carry, key):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(KEY, 400)
    start = (params, optimizer.init(params))
    (params, _), _ = jax.jit(lambda start: jax.lax.scan(turn, start, keys))(start)
    estimates = jax.vmap(lambda key: logits(params, key)[0].mean())(jax.random.split(KEY, 50))
    np.testing.assert_allclose(estimates.mean(), expected, rtol=0.1)


def test_a_discriminator_without_a_hidden_layer_is_refused():
    with pytest.raises(errors.InputError, match=r"hidden=\(\) must name a layer's width"):
        density_ratio.Discriminator(5, (), dtype=jnp.float32, rngs=nnx.Rngs(0))
