"""β-TCVAE's equation, computed by hand; tests/training trains it on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import beta_tcvae, default
from pipeline import datasets, models
from pipeline.models import beta_tcvae as variant
from pipeline.nn import gaussian_vae
from pipeline.runtime import errors
from pipeline.training import setup

OWN = gaussian_vae.Terms(jnp.float32(100.0), jnp.float32(8.0))
PARTS = variant.Coupled(jnp.float32(5.0), jnp.float32(2.0), jnp.float32(1.0))
N = 40


def make_model(**changes):
    config = beta_tcvae.get_config("sprites,smoke")
    config.model.num_examples = N
    config.model.beta = default.schedule("linear", start=0.0, end=6.0, steps=10)
    config.update_from_flattened_dict(changes)
    graphdef, init = models.make(config, datasets.example_spec(config))
    return nnx.merge(graphdef, *init())


def shown(num=5):
    z, mean, log_variance = np.random.default_rng(1).normal(size=(3, num, 4)).astype(np.float32)
    return gaussian_vae.Shown(z, mean, log_variance - 1)


def density(z, mean, log_variance):
    variance = np.exp(log_variance)
    return np.exp(-((z - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


@pytest.mark.parametrize(("step", "beta"), [(0, 0.0), (5, 3.0), (99, 6.0)])
def test_the_objective_weighs_the_three_parts_of_the_kl(step, beta):
    model = make_model(**{"model.alpha": 3.0, "model.gamma": 0.5})
    loss = model.objective((OWN, PARTS), step=jnp.int32(step))
    assert float(loss) == 100.0 + 3.0 * 5.0 + beta * 2.0 + 0.5 * 1.0
    logged = model.metrics((OWN, PARTS), {}, step=jnp.int32(step))
    assert float(logged["beta"]) == beta
    assert [float(logged[name]) for name in variant.Coupled._fields] == [5.0, 2.0, 1.0]
    assert (float(logged["elbo"]), float(logged["kl_loss"])) == (-108.0, 8.0)


def test_the_terms_are_those_of_loops_over_pairs():
    given, mask = shown(), np.float32([1, 1, 0, 1, 1])
    terms = make_model().coupled(given, mask=jnp.asarray(mask), step=jnp.int32(0))
    true = np.flatnonzero(mask)
    for i in true:
        pairs = np.array([density(given.z[i], given.mean[j], given.log_variance[j]) for j in true])
        own, prior = density(*(x[i] for x in given[:3])), density(given.z[i], 0.0, 0.0)
        joint = pairs.prod(axis=1).sum() / (N * len(true))
        each = pairs.sum(axis=0) / (N * len(true))
        expected = (
            np.log(own.prod() / joint),
            np.log(joint / each.prod()),
            np.log(each / prior).sum(),
        )
        found = [term[i] for term in terms]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
def test_the_parts_add_up_to_the_kl_of_the_sample(estimator):
    given = shown()
    model = make_model(**{"model.estimator": estimator})
    parts = model.coupled(given, mask=jnp.ones(5), step=jnp.int32(0))
    expected = np.log(density(*given[:3]) / density(given.z, 0.0, 0.0)).sum(axis=1)
    np.testing.assert_allclose(sum(parts), expected, rtol=1e-4, atol=1e-4)


def test_the_estimators_differ():
    terms = [
        make_model(**{"model.estimator": name}).coupled(shown(), mask=jnp.ones(5), step=0)
        for name in ("weighted", "stratified")
    ]
    assert not np.allclose(terms[0].total_correlation, terms[1].total_correlation)


def test_the_own_terms_use_the_z_that_is_shown():
    model, keys = make_model(), jax.random.split(jax.random.key(0), 3)
    batch = {"image": np.zeros((3, 64, 64, 1), np.uint8)}
    given = model.shown(batch, keys=keys, step=jnp.int32(0))
    terms, sums = model.terms(batch, keys=keys, step=jnp.int32(0), shown=given)
    np.testing.assert_array_equal(terms.reconstruction, model.nll(given.z, batch))
    other, _ = model.terms(batch, keys=keys, step=0, shown=given._replace(z=given.z + 1))
    assert np.all(other.reconstruction != terms.reconstruction)
    assert sums == {}


def test_an_unknown_estimator_is_refused():
    with pytest.raises(errors.InputError, match=r"estimator='exact' is unknown: choose one of str"):
        make_model(**{"model.estimator": "exact"})


def test_the_number_of_training_examples_is_counted_when_data_are_open():
    config = beta_tcvae.get_config("sprites,smoke")
    config.data.train_examples = 1000
    ready = setup.prepare(config.lock())
    assert ready.config.model.num_examples == 1000
    assert ready.given.model.num_examples == 0
    given = beta_tcvae.get_config("sprites,smoke")
    given.model.num_examples = 77
    assert setup.prepare(given.lock()).config.model.num_examples == 77
