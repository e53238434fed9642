"""Likelihoods and divergences: one value an example, in nats, summed over pixels and latents.

`scaled_squared_error` alone is a mean over pixels, and not in nats.

The caller averages over the batch, so β = 1 is the evidence lower bound (ELBO) and "25 nats" of
capacity are 25 nats. All arithmetic is float32, whatever the compute type of the networks.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array


def bernoulli_nll(logits: Array, image: Array) -> Array:
    """Negative log-likelihood of `image` under independent Bernoullis, −log p(x|z).

    Args:
        logits: [B, ...] log-odds; no sigmoid is applied before (it is applied here, stably).
        image: [B, ...] in [0, 1]. For values strictly between, this is the cross-entropy that the
            literature uses in the likelihood's place.

    Returns:
        [B] float32, nats per example, summed over all other axes.
    """
    logits, image = logits.astype(jnp.float32), image.astype(jnp.float32)
    return _sum_over_example(jax.nn.softplus(logits) - image * logits)


def gaussian_nll(mean: Array, image: Array, *, log_sigma: Array | float) -> Array:
    """Negative log-density of `image` under N(mean, σ²), the normaliser included.

    σ² = 1 gives ½·SSE plus the constant ½·log 2π a pixel, which moves no gradient but makes a
    learned σ right (Rybkin et al. 2021, arXiv:2006.13202).

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
    """Squared error over the variance of the data, as Sonnet's VQ-VAE has it. Not nats.

    1 is the error of the best constant image, so that values compare between data sets.

    Args:
        mean: [B, ...].
        image: [B, ...] in [0, 1].
        variance: of the data's pixels in [0, 1]; the same for any other interval of length 1.

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
    """Draws z = μ + σ·ε, ε ~ N(0, 1), with a key of its own for every example.

    A key per example (and not one for the batch) makes the noise of an example independent of how
    the batch is cut over devices, processes and accumulation steps.

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
