"""FactorVAE's equation, computed by hand; tests/training trains it on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import factor_vae
from pipeline import datasets, models
from pipeline.models import factor_vae as variant
from pipeline.nn import gaussian_vae
from pipeline.runtime import errors

OWN = gaussian_vae.Terms(jnp.float32(100.0), jnp.float32(8.0))
COUPLED = variant.Coupled(jnp.float32(2.0), jnp.float32(0.5), jnp.float32(0.75))
BATCH = {"image": np.random.default_rng(0).integers(0, 256, (6, 64, 64, 1)).astype(np.uint8)}
KEYS = jax.random.split(jax.random.key(0), 6)
NUMBERS = np.random.default_rng(2).uniform(size=(6, 10)).astype(np.float32)


def make(**changes):
    config = factor_vae.get_config("sprites,smoke")
    config.model.gamma = 3.0
    config.update_from_flattened_dict(changes)
    graphdef, init = models.make(config, datasets.example_spec(config))
    return graphdef, init()


def make_model(**changes):
    graphdef, values = make(**changes)
    return nnx.merge(graphdef, *values)


def logits(discriminator, z):
    """Returns log D/(1 − D) of the model's discriminator, in float64."""
    *layers, last = discriminator.layers
    for layer in layers:
        z = z @ np.float64(layer.kernel[...]) + np.float64(layer.bias[...])
        z = np.where(z > 0, z, 0.2 * z)
    return (z @ np.float64(last.kernel[...]) + np.float64(last.bias[...]))[:, 0]


def test_the_objective_adds_the_correlation_and_the_discriminators_loss():
    model = make_model()
    assert float(model.objective((OWN, COUPLED), step=jnp.int32(0))) == 100.0 + 8.0 + 3.0 * 2 + 0.5
    logged = model.metrics((OWN, COUPLED), {}, step=jnp.int32(0))
    assert [float(logged[name]) for name in variant.Coupled._fields] == [2.0, 0.5, 0.75]
    assert (float(logged["elbo"]), float(logged["kl_loss"])) == (-108.0, 8.0)


def test_the_terms_are_those_of_the_discriminators_probabilities():
    model = make_model()
    z = np.random.default_rng(1).normal(size=(6, 10)).astype(np.float32)
    shown = gaussian_vae.Shown(z, z, z, NUMBERS)
    found = model.coupled(shown, mask=jnp.ones(6), step=jnp.int32(0))
    ratio = logits(model.discriminator, np.float64(z))
    np.testing.assert_allclose(found.total_correlation, ratio, rtol=1e-4, atol=1e-6)
    # The permuted half of the loss: its sum is that of some permutation of each latent.
    own = np.log1p(np.exp(-ratio))
    permuted_logits = np.log(np.expm1(2 * np.float64(found.discriminator_loss) - own))
    right = (ratio > 0).astype(int) + (permuted_logits < 0)
    np.testing.assert_array_equal(found.discriminator_accuracy, right / 2)
    assert abs(permuted_logits - ratio).max() > 1e-3


def test_the_examples_keys_decide_the_permutation():
    model = make_model()
    one, again, other = (
        model.shown(BATCH, keys=keys, step=jnp.int32(0)) for keys in (KEYS, KEYS, KEYS[::-1])
    )
    np.testing.assert_array_equal(one.drawn, again.drawn)
    np.testing.assert_array_equal(one.drawn, other.drawn[::-1])
    z = jnp.float32(np.random.default_rng(1).normal(size=(6, 10)))
    first, second = (
        model.coupled(shown._replace(z=z), mask=jnp.ones(6), step=jnp.int32(0))
        for shown in (one, other)
    )
    np.testing.assert_array_equal(first.total_correlation, second.total_correlation)
    assert not np.array_equal(first.discriminator_loss, second.discriminator_loss)


def test_each_parameter_has_the_gradient_of_its_own_term_only():
    graphdef, (params, stats) = make()

    def gradient(weights):
        def loss(params):
            model = nnx.merge(graphdef, params, stats)
            shown = model.shown(BATCH, keys=KEYS, step=jnp.int32(0))
            own, _ = model.terms(BATCH, keys=KEYS, step=jnp.int32(0), shown=shown)
            coupled = model.coupled(shown, mask=jnp.ones(6), step=jnp.int32(0))
            means = jax.tree.map(jnp.mean, (own, coupled))
            if weights is None:
                return model.objective(means, step=jnp.int32(0))
            return jnp.dot(jnp.float32(weights), jnp.stack([*means[0], *means[1]]))

        return jax.grad(loss)(params)

    whole = gradient(None)
    of_vae, of_discriminator = gradient((1, 1, 3, 0, 0)), gradient((0, 0, 0, 1, 0))
    for name in ("encoder", "decoder"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            whole[name],
            of_vae[name],
        )
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_discriminator[name]))
    jax.tree.map(
        np.testing.assert_array_equal, whole["discriminator"], of_discriminator["discriminator"]
    )
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_vae["discriminator"]))
    of_correlation = gradient((0, 0, 1, 0, 0))["encoder"]
    assert all(np.any(leaf) for leaf in jax.tree.leaves(of_correlation))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.gamma": -1.0}, "config.model.gamma=-1.0 must not be negative"),
        ({"model.gamma": float("nan")}, "config.model.gamma=nan must not be negative"),
        ({"model.latent_dim": 1}, "model.latent_dim=1 must be at least 2: a single one has no tot"),
        ({"model.discriminator.hidden": ()}, r"discriminator.hidden=\(\) must name a layer's"),
        ({"batch_size": 1}, "config.batch_size=1 must be at least 2: this model"),
    ],
)
def test_a_value_that_cannot_work_is_refused(change, words):
    with pytest.raises(errors.InputError, match=words):
        make_model(**change)
