import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from pipeline.nn import losses

RANDOM = np.random.default_rng(0)


def test_bernoulli_nll_is_scipys_for_binary_images():
    logits = RANDOM.normal(0, 3, (5, 4, 4, 1)).astype(np.float32)
    image = RANDOM.integers(0, 2, logits.shape).astype(np.float32)
    expected = -scipy.stats.bernoulli.logpmf(image, scipy.special.expit(logits)).sum((1, 2, 3))
    np.testing.assert_allclose(losses.bernoulli_nll(logits, image), expected, rtol=1e-5)


def test_bernoulli_nll_is_finite_and_exact_for_extreme_logits():
    logits, image = jnp.array([[1000.0, -1000.0]]), jnp.array([[0.0, 1.0]])
    assert losses.bernoulli_nll(logits, image)[0] == 2000.0


def test_gaussian_nll_is_scipys():
    mean, image = RANDOM.normal(size=(2, 5, 3, 3, 2)).astype(np.float32)
    expected = -scipy.stats.norm.logpdf(image, mean, 0.3).sum((1, 2, 3))
    actual = losses.gaussian_nll(mean, image, log_sigma=np.log(0.3))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_gaussian_nll_of_unit_variance_is_half_the_squared_error_plus_a_constant():
    mean, image = jnp.zeros((1, 4)), jnp.array([[1.0, 2.0, 3.0, 4.0]])
    constant = 4 * 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(
        losses.gaussian_nll(mean, image, log_sigma=0.0), [15.0 + constant], rtol=1e-6
    )


def test_kl_is_the_closed_form_of_two_gaussians():
    mean, log_variance = RANDOM.normal(size=(2, 6, 3)).astype(np.float32)
    sigma = np.exp(0.5 * log_variance)
    # KL(N(μ, σ²) ‖ N(m, s²)) = log(s/σ) + (σ² + (μ − m)²) / 2s² − ½ with m = 0, s = 1
    expected = np.log(1 / sigma) + (sigma**2 + mean**2) / 2 - 0.5
    actual = losses.kl_to_standard_normal(mean, log_variance)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_kl_is_the_mean_of_the_log_ratio_of_the_densities():
    mean, log_variance = 0.7, -1.1
    z = RANDOM.normal(mean, np.exp(0.5 * log_variance), 400_000)
    ratio = scipy.stats.norm.logpdf(z, mean, np.exp(0.5 * log_variance))
    ratio -= scipy.stats.norm.logpdf(z)
    actual = losses.kl_to_standard_normal(jnp.float32(mean), jnp.float32(log_variance))
    np.testing.assert_allclose(actual, ratio.mean(), rtol=0.01)


def test_noise_of_an_example_does_not_depend_on_the_rest_of_the_batch():
    keys = jax.random.split(jax.random.key(3), 8)
    zeros = jnp.zeros((8, 4))
    whole = losses.sample_normal(zeros, zeros, keys)
    half = losses.sample_normal(zeros[4:], zeros[4:], keys[4:])
    np.testing.assert_array_equal(whole[4:], half)
