"""InfoVAE's equation, computed by hand; tests/training trains it on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import info_vae
from pipeline import datasets, models
from pipeline.models import info_vae as variant
from pipeline.nn import gaussian_vae
from pipeline.runtime import errors

OWN = gaussian_vae.Terms(jnp.float32(100.0), jnp.float32(8.0))
COUPLED = variant.Coupled(jnp.float32(0.25))
BATCH = {"image": np.random.default_rng(0).integers(0, 256, (5, 64, 64, 1)).astype(np.uint8)}
KEYS = jax.random.split(jax.random.key(0), 5)


def make_model(**changes):
    config = info_vae.get_config("sprites,smoke")
    config.update_from_flattened_dict(changes)
    graphdef, init = models.make(config, datasets.example_spec(config))
    return nnx.merge(graphdef, *init())


@pytest.mark.parametrize(
    ("alpha", "weight", "kl", "mmd"),
    [(1.0, 1000.0, 0.0, 1000.0), (0.0, 1.0, 1.0, 0.0), (0.25, 10.0, 0.75, 9.25)],
)
def test_the_objective_weighs_the_kl_and_the_discrepancy(alpha, weight, kl, mmd):
    model = make_model(**{"model.alpha": alpha, "model.lambda_mmd": weight})
    loss = model.objective((OWN, COUPLED), step=jnp.int32(0))
    assert float(loss) == 100.0 + kl * 8.0 + mmd * 0.25
    logged = model.metrics((OWN, COUPLED), {}, step=jnp.int32(0))
    found = [float(logged[name]) for name in ("mmd", "kl_loss", "elbo")]
    assert found == [0.25, 8.0, -108.0]


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_the_coupled_term_leaves_padding_out(kernel):
    model = make_model(**{"model.kernel": kernel})
    shown = model.shown(BATCH, keys=KEYS, step=jnp.int32(0))
    three = jax.tree.map(lambda x: x[jnp.array([0, 2, 3])], shown)
    expected = model.coupled(three, mask=jnp.ones(3), step=jnp.int32(0)).mmd
    mask = jnp.float32([1, 0, 1, 1, 0])
    found = model.coupled(shown, mask=mask, step=jnp.int32(0)).mmd[jnp.array([0, 2, 3])]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_draws_of_the_prior_are_normal_and_follow_the_examples_key():
    model = make_model()
    keys = jax.random.split(jax.random.key(1), 4000)
    shown = jax.eval_shape(lambda: model.shown(BATCH, keys=KEYS, step=jnp.int32(0)))
    assert {x.shape for x in shown} == {(5, 10)}
    images = {"image": jnp.zeros((4000, 64, 64, 1), jnp.uint8)}
    z, mean, log_variance, prior = model.shown(images, keys=keys, step=jnp.int32(0))
    np.testing.assert_allclose(prior.mean(axis=0), 0.0, atol=0.08)  # 5 standard errors
    np.testing.assert_allclose(np.cov(prior, rowvar=False), np.eye(10), atol=0.12)
    # The noise of z is another draw.
    noise = (z - mean) * jnp.exp(-log_variance / 2)
    between = np.corrcoef(noise, prior, rowvar=False)[:10, 10:]
    np.testing.assert_allclose(between, 0.0, atol=0.08)
    images = {"image": images["image"][:7]}
    again = model.shown(images, keys=keys[5:12], step=jnp.int32(9)).drawn
    np.testing.assert_array_equal(again, prior[5:12])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.kernel": "cosine"}, "model.kernel='cosine' is unknown: choose one of imq, rbf"),
        ({"model.alpha": 1.5}, "model.alpha=1.5 must lie between 0 and 1; 1 leaves out the KL"),
        ({"model.alpha": float("nan")}, "model.alpha=nan must lie between 0 and 1"),
        ({"model.alpha": 0.0, "model.lambda_mmd": 0.5}, "lambda_mmd=0.5 must be at least 1.0: wi"),
        ({"model.lambda_mmd": float("nan")}, "lambda_mmd=nan must be at least 0.0: with a lower"),
        ({"batch_size": 1}, "config.batch_size=1 must be at least 2: this model"),
    ],
)
def test_a_value_that_cannot_work_is_refused(change, words):
    with pytest.raises(errors.InputError, match=words):
        make_model(**change)
