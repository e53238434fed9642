"""Quantities that are logged, computed from means and sums over the global batch or data set."""

import math

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import entr

Metrics = dict[str, Array]


def rate_distortion(*, distortion: Array, rate: Array, num_dims: int, bin_width: float) -> Metrics:
    """The parts of the evidence lower bound at β = 1, whatever the training objective weighs.

    Args:
        distortion: −log p(x|z), nats, summed over pixels, mean over the batch.
        rate: KL(q(z|x) ‖ p(z)), nats, summed over latents, mean over the batch.
        num_dims: H·W·C of an image.
        bin_width: width of one value of the data in the units of the likelihood: 1 where it gives
            probabilities (Bernoulli), 1/255 where it gives densities over [0, 1] of 8-bit pixels.

    Returns:
        `rate`, `distortion` and `elbo` in nats per example (the ELBO is minus their sum: higher is
        better), and `bits_per_dim` = −(ELBO/D + log bin_width) / log 2.
    """
    elbo = -(distortion + rate)
    bits = bits_per_dim(elbo, num_dims=num_dims, bin_width=bin_width)
    return {"rate": rate, "distortion": distortion, "elbo": elbo, "bits_per_dim": bits}


def bits_per_dim(bound: Array, *, num_dims: int, bin_width: float) -> Array:
    """A bound on log p(x), nats per example, as bits per pixel and channel; lower is better."""
    return -(bound / num_dims + math.log(bin_width)) / math.log(2.0)


def code_use(counts: Array) -> Metrics:
    """How a codebook is used, over the global batch or the whole of the evaluated data.

    Args:
        counts: [Q, K], vectors given to each code of each of Q codebooks, summed before: a mean of
            perplexities over devices or batches would be too low.

    Returns:
        `perplexity` = exp(entropy of use), between 1 and K (of several codebooks, from their mean
        entropy); `codebook_usage`, the share of codes used at all; and `code_usage` [Q·K], each
        code's use over that of uniform use.
    """
    share = counts / counts.sum(axis=-1, keepdims=True)
    return {
        "perplexity": jnp.exp(entr(share).sum(axis=-1).mean()),
        "codebook_usage": (counts > 0).mean(),
        "code_usage": (share * counts.shape[-1]).ravel(),
    }
