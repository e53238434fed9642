"""What the Gaussian VAEs share: terms and methods, and a condition that reaches all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import beta_vae, conditional_vae
from pipeline import datasets, models
from pipeline.nn import losses

KEYS = jax.random.split(jax.random.key(0), 4)
IMAGE = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 1), np.uint8)
FACTORS = np.zeros((4, 6), np.int32)
MASK = np.ones(4, np.float32)


def make_model(module=beta_vae):
    config = module.get_config("sprites,smoke")
    graphdef, init = models.make(config, datasets.example_spec(config))
    return nnx.merge(graphdef, *init())


@pytest.mark.parametrize("module", [beta_vae, conditional_vae])
def test_the_terms_are_those_of_posterior_and_nll_with_one_sample(module):
    model, batch = make_model(module), {"image": IMAGE, "factors": FACTORS, "mask": MASK}
    terms, sums = model.terms(batch, keys=KEYS, step=jnp.int32(0))
    mean, log_variance = model.posterior(batch)
    z = losses.sample_normal(mean, log_variance, KEYS)
    np.testing.assert_allclose(terms.reconstruction, model.nll(z, batch), rtol=1e-6)
    kl = losses.kl_to_standard_normal(mean, log_variance).sum(axis=-1)
    np.testing.assert_allclose(terms.kl, kl, rtol=1e-6)
    assert sums == {}


def test_a_reconstruction_decodes_the_posteriors_mean():
    model = make_model()
    images = model.reconstruct({"image": IMAGE})
    np.testing.assert_array_equal(images, model.decode(model.encode(IMAGE)[0]))
    assert images.shape == IMAGE.shape and images.min() >= 0 and images.max() <= 1


def test_a_sample_depends_on_its_own_key_only():
    model = make_model()
    images = model.sample(KEYS)
    np.testing.assert_allclose(model.sample(KEYS[2:3])[0], images[2], atol=1e-6)
    assert np.any(images[0] != images[1])


def test_a_condition_reaches_the_posterior_and_the_decoder():
    model, other = make_model(conditional_vae), {"image": IMAGE, "factors": FACTORS + 1}
    batch = other | {"factors": FACTORS}
    z = jnp.zeros((4, model.latent_dim))
    assert np.any(model.posterior(batch)[0] != model.posterior(other)[0])
    assert np.any(model.nll(z, batch) != model.nll(z, other))
    assert np.any(model.sample(KEYS, batch) != model.sample(KEYS, other))
    plain = make_model()
    np.testing.assert_array_equal(plain.posterior(batch)[0], plain.posterior(other)[0])
