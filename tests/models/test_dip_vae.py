"""DIP-VAE's equation against NumPy's covariances; tests/training/test_step.py trains it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import dip_vae
from pipeline import datasets, models
from pipeline.models import dip_vae as variant
from pipeline.runtime import errors
from tests.support import small_models

WEIGHTS = {"model.lambda_od": 3.0, "model.lambda_d": 0.5}


def make_model(**changes):
    config = dip_vae.get_config("sprites,smoke")
    config.update_from_flattened_dict(changes)
    graphdef, init = models.make(config, datasets.example_spec(config))
    return nnx.merge(graphdef, *init())


def drawn(num=6):
    image = np.random.default_rng(0).integers(0, 256, (num, 64, 64, 1)).astype(np.uint8)
    return {"image": image}, jax.random.split(jax.random.key(0), num)


@pytest.mark.parametrize("covariance", ["means", "samples"])
def test_the_objective_is_that_of_numpys_covariance(covariance):
    model = make_model(**WEIGHTS, **{"model.covariance": covariance})
    batch, keys = drawn()
    terms, sums = model.terms(batch, keys=keys, step=jnp.int32(0))
    means = jax.tree.map(lambda term: term.mean(axis=0), terms)
    mean, log_variance = (np.float64(x) for x in model.posterior(batch))
    expected = np.cov(mean, rowvar=False, bias=True)
    if covariance == "samples":
        expected += np.diag(np.exp(log_variance).mean(axis=0))
    off_diagonal = sum(expected[i, j] ** 2 for i in range(10) for j in range(10) if i != j)
    diagonal = sum((expected[i, i] - 1) ** 2 for i in range(10))
    elbo = float(-means.reconstruction - means.kl)
    logged = model.metrics(means, sums, step=jnp.int32(0))
    np.testing.assert_allclose(logged["covariance_off_diagonal"], off_diagonal, rtol=1e-3)
    np.testing.assert_allclose(logged["covariance_diagonal"], diagonal, rtol=1e-5)
    loss = model.objective(means, step=jnp.int32(0))
    np.testing.assert_allclose(loss, -elbo + 3.0 * off_diagonal + 0.5 * diagonal, rtol=1e-6)
    assert float(logged["elbo"]) == elbo
    assert sums == {}


def test_the_covariance_of_samples_is_that_of_many_draws():
    model, (batch, _) = make_model(), drawn()
    mean, log_variance = (np.float64(x) for x in model.posterior(batch))
    noise = np.random.default_rng(1).normal(size=(100_000, *mean.shape))
    z = (mean + np.exp(log_variance / 2) * noise).reshape(-1, 10)
    terms, _ = model.terms(batch, keys=drawn()[1], step=jnp.int32(0))
    mean, second_moment = terms.mean.mean(axis=0), terms.second_moment.mean(axis=0)
    found = second_moment - np.outer(mean, mean)
    np.testing.assert_allclose(found, np.cov(z, rowvar=False, bias=True), atol=0.01)


def test_latents_that_are_independent_and_of_variance_1_cost_nothing():
    zero, ones = jnp.float32(0), jnp.ones(4)
    means = variant.Terms(zero, zero, 2 * ones, 4 * jnp.ones((4, 4)) + jnp.eye(4))
    assert [float(penalty) for penalty in make_model().penalties(means)] == [0.0, 0.0]


def test_the_covariance_is_that_of_the_global_batch():
    # Each half of this batch has its own mean, so covariances of shards would be too small.
    config = small_models.make_config("dip", batch_size=8)
    images = np.stack([np.zeros((16, 16, 1)), np.full((16, 16, 1), 255)]).repeat(4, axis=0)
    images = images.astype(np.uint8)
    found = [
        small_models.train(config, devices, num_steps=1, images=images)[2] for devices in (1, 2, 8)
    ]
    for name in ("covariance_off_diagonal", "covariance_diagonal", "grad_norm"):
        values = [float(metrics[name]) for metrics in found]
        np.testing.assert_allclose(values, values[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.covariance": "z"}, "model.covariance='z' is unknown: choose one of means, samp"),
        ({"model.latent_dim": 1}, "model.latent_dim=1 must be at least 2: a single one has no cov"),
        ({"batch_size": 1}, "config.batch_size=1 must be at least 2: a single one has no covar"),
    ],
)
def test_a_value_that_cannot_work_is_refused(change, words):
    with pytest.raises(errors.InputError, match=words):
        make_model(**change)
