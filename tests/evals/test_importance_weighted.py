"""The importance-weighted bound equals closed forms, and is the same on every mesh."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from configs import beta_vae, conditional_vae, mnist_vae, vq_vae
from pipeline import datasets
from pipeline.evals import heldout, importance_weighted
from pipeline.mesh import sharding
from pipeline.nn import losses
from pipeline.runtime import errors
from pipeline.training import step

RANDOM = np.random.default_rng(0)
SIGMA, WEIGHT = 0.5, np.float32([[1.0, 0.5], [-0.5, 1.0], [0.0, 0.0]])  # orthogonal columns
IMAGES = (RANDOM.normal(size=(64, 2)) @ WEIGHT.T + SIGMA * RANDOM.normal(size=(64, 3))).astype("f4")
KEYS = jax.random.split(jax.random.key(0), len(IMAGES))
EVIDENCE = stats.multivariate_normal(np.zeros(3), WEIGHT @ WEIGHT.T + SIGMA**2 * np.eye(3))


def linear_model(*, shift=0.0, scale=1.0):
    """x = W z + σ ε: its posterior is Gaussian, and diagonal if W has orthogonal columns."""
    variance = 1.0 / (1.0 + (WEIGHT**2).sum(axis=0) / SIGMA**2)

    def posterior(batch):
        mean = batch["image"] @ WEIGHT / SIGMA**2 * variance
        return mean + shift, jnp.broadcast_to(jnp.log(scale * variance), mean.shape)

    def nll(z, batch):
        return losses.gaussian_nll(z @ WEIGHT.T, batch["image"], log_sigma=np.log(SIGMA))

    return types.SimpleNamespace(posterior=posterior, nll=nll)


def weights_of(model, num_samples, *, chunk):
    weights = jax.jit(
        lambda keys: importance_weighted.log_weights(
            model, {"image": IMAGES}, keys, num_samples=num_samples, chunk=chunk
        )
    )
    return np.asarray(weights(KEYS))


def mean_bound(weights, num_samples):
    """Returns the mean over examples and over all draws of the bound in `weights` [K, B]."""
    groups = weights.reshape(-1, num_samples, weights.shape[1])
    return (special.logsumexp(groups, axis=1) - np.log(num_samples)).mean()


def test_with_the_true_posterior_every_weight_is_the_evidence():
    weights = weights_of(linear_model(), 7, chunk=3)
    assert weights.shape == (7, 64)
    np.testing.assert_allclose(weights, np.tile(EVIDENCE.logpdf(IMAGES), (7, 1)), atol=1e-4)


def test_the_bound_rises_from_the_elbo_to_the_evidence():
    model = linear_model(shift=0.3, scale=1.5)
    mean, log_variance = model.posterior({"image": IMAGES})
    # E[−log p(x|z)] in closed form: its value at the mean of z, plus what z's variance adds.
    spread = (np.exp(log_variance) * (WEIGHT**2).sum(axis=0)).sum(axis=-1) / (2 * SIGMA**2)
    elbo = -model.nll(mean, {"image": IMAGES}) - spread
    elbo -= losses.kl_to_standard_normal(mean, log_variance).sum(axis=-1)
    evidence = EVIDENCE.logpdf(IMAGES).mean()
    weights = weights_of(model, 5000, chunk=500)
    one, five, fifty, all_draws = (mean_bound(weights, k) for k in (1, 5, 50, 5000))
    assert abs(one - elbo.mean()) < 0.02
    assert one + 0.1 < five < fifty < evidence
    assert abs(all_draws - evidence) < 0.005


def test_the_density_ratio_is_scipys():
    z, mean, log_variance = RANDOM.normal(size=(3, 5, 4)).astype(np.float32)
    expected = stats.norm.logpdf(z) - stats.norm.logpdf(z, mean, np.exp(log_variance / 2))
    np.testing.assert_allclose(losses.log_prior_ratio(z, mean, log_variance), expected, atol=1e-5)


def evaluated(module, *, devices=1, batch=16, evaluation=importance_weighted, **changes):
    config = module.get_config("sprites,smoke")
    config.eval_examples, config.eval_batch_size = 70, batch
    config.importance_weighted.num_samples = 20
    if module is conditional_vae:
        config.model.conditions = ("factors",)
    config.update_from_flattened_dict(changes)
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:devices])
    state = step.create_state(config, datasets.example_spec(config), mesh)
    return dict(evaluation.make(config, mesh, datasets.load(config).heldout)(state))


def test_the_figures_depend_on_no_mesh_no_batch_and_no_chunk():
    one = evaluated(conditional_vae)
    four = evaluated(conditional_vae, devices=4, batch=64, **{"importance_weighted.chunk": 7})
    assert one.keys() == four.keys()
    for tag in ("heldout/iw_elbo", "heldout/iw_bits_per_dim"):
        np.testing.assert_allclose(one[tag], four[tag], rtol=1e-5)
    elbo = evaluated(conditional_vae, evaluation=heldout)["heldout/elbo"]
    assert one["heldout/iw_elbo"] > elbo


def test_fewer_samples_are_the_first_of_more():
    few = evaluated(beta_vae, **{"importance_weighted.num_samples": 5})
    many = evaluated(beta_vae)["heldout/iw_convergence"].splitlines()
    assert [row.split("|")[1].strip() for row in many[2:]] == ["1", "2", "5", "10", "20"]
    assert few["heldout/iw_convergence"].splitlines() == many[:5]
    assert importance_weighted.sample_counts(200) == (1, 2, 5, 10, 20, 50, 100, 200)
    assert importance_weighted.sample_counts(1) == (1,)


def test_densities_of_pixels_are_counted_in_bits_of_8_bit_values():
    changes = {"model.likelihood": "gaussian", "model.learn_sigma": True}
    found = evaluated(mnist_vae, **changes, **{"importance_weighted.num_samples": 1})
    bits = (np.log(255) - found["heldout/iw_elbo"] / 64**2) / np.log(2)
    np.testing.assert_allclose(found["heldout/iw_bits_per_dim"], bits, rtol=1e-6)


def test_what_cannot_work_is_one_line():
    with pytest.raises(errors.InputError, match=r"model.name='vq_vae' lacks: leave it out"):
        evaluated(vq_vae)
    with pytest.raises(errors.InputError, match=r"num_samples=0 must be at least 1"):
        evaluated(beta_vae, **{"importance_weighted.num_samples": 0})
