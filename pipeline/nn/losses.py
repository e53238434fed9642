"""Likelihoods and divergences: one value per example, in nats, summed over pixels and latents.

Only `scaled_squared_error` differs: it is a mean over pixels, and not in nats. The caller averages
over the batch. With sums, β = 1 is the evidence lower bound (ELBO), and a capacity of 25 means
25 nats. All arithmetic is float32, whatever the compute type of the networks.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array


def bernoulli_nll(logits: Array, image: Array) -> Array:
    """Negative log-likelihood of `image` under independent Bernoullis, −log p(x|z).

    Args:
        logits: [B, ...] log-odds. Do not apply a sigmoid first: this function includes it, in a
            numerically stable form.
        image: [B, ...] in [0, 1]. For values strictly between 0 and 1 the result is the
            cross-entropy, which the literature uses in place of the likelihood.

    Returns:
        [B] float32, nats per example, summed over all other axes.
    """
    logits, image = logits.astype(jnp.float32), image.astype(jnp.float32)
    return _sum_over_example(jax.nn.softplus(logits) - image * logits)


def gaussian_nll(mean: Array, image: Array, *, log_sigma: Array | float) -> Array:
    """Negative log-density of `image` under N(mean, σ²), with the normaliser.

    With σ² = 1 it is ½·SSE plus the constant ½·log 2π per pixel. The normaliser does not change the
    gradient of the mean, but a learned σ needs it (Rybkin et al. 2021, arXiv:2006.13202).

    Args:
        mean: [B, ...].
        image: [B, ...] in [0, 1].
        log_sigma: log σ, a scalar or broadcastable to `image`.

    Returns:
        [B] float32, nats per example, summed over all other axes.
    """
    mean, image = mean.astype(jnp.float32), image.astype(jnp.float32)
    log_sigma = jnp.asarray(log_sigma, jnp.float32)
    standardised = (image - mean) * jnp.exp(-log_sigma)
    return _sum_over_example(
        0.5 * jnp.square(standardised) + log_sigma + 0.5 * math.log(2 * math.pi)
    )


def scaled_squared_error(mean: Array, image: Array, *, variance: float) -> Array:
    """Squared error divided by the variance of the data, as in Sonnet's VQ-VAE. Not nats.

    The value 1 is the error of the best constant, so that values of two data sets can be compared.

    Args:
        mean: [B, ...].
        image: [B, ...] in [0, 1].
        variance: variance of the data's pixels in [0, 1]. Any other interval of length 1 gives the
            same variance.

    Returns:
        [B] float32, dimensionless, mean over all other axes.
    """
    error = jnp.square(image.astype(jnp.float32) - mean.astype(jnp.float32))
    return error.mean(axis=tuple(range(1, error.ndim))) / jnp.float32(variance)


def kl_to_standard_normal(mean: Array, log_variance: Array) -> Array:
    """KL(N(mean, exp(log_variance)) ‖ N(0, 1)), per latent: ½(μ² + σ² − 1 − log σ²).

    Kingma & Welling 2014 (arXiv:1312.6114), appendix B.

    Args:
        mean: [B, D].
        log_variance: [B, D].

    Returns:
        [B, D] float32, nats per latent. Sum over D for the KL of an example.
    """
    mean, log_variance = mean.astype(jnp.float32), log_variance.astype(jnp.float32)
    return 0.5 * (jnp.square(mean) + jnp.expm1(log_variance) - log_variance)


def log_prior_ratio(z: Array, mean: Array, log_variance: Array) -> Array:
    """log N(z; 0, 1) − log N(z; mean, exp(log_variance)), per latent.

    Args:
        z: [B, D].
        mean: [B, D].
        log_variance: [B, D].

    Returns:
        [B, D] float32, nats per latent. Its mean over z ~ N(mean, exp(log_variance)) is minus the
        KL of `kl_to_standard_normal`.
    """
    mean, log_variance = mean.astype(jnp.float32), log_variance.astype(jnp.float32)
    standardised = (z - mean) * jnp.exp(-0.5 * log_variance)
    return 0.5 * (jnp.square(standardised) + log_variance - jnp.square(z))


def sample_normal(mean: Array, log_variance: Array, keys: Array) -> Array:
    """Draws z = μ + σ·ε, ε ~ N(0, 1), with a separate key for every example.

    With one key for the batch, an example's noise would depend on how the batch is divided among
    devices, processes and accumulation steps.

    Args:
        mean: [B, D].
        log_variance: [B, D].
        keys: [B] typed PRNG keys.

    Returns:
        z, [B, D] float32.
    """
    noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:], jnp.float32))(keys)
    return mean + jnp.exp(0.5 * log_variance) * noise


def _sum_over_example(values: Array) -> Array:
    return values.sum(axis=tuple(range(1, values.ndim)))
