"""Quantities that are logged, computed from means and sums over the global batch or data set."""

import math

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import entr

Metrics = dict[str, Array]


def rate_distortion(
    *, distortion: Array, rate: Array, num_dims: int, bin_width: float | None
) -> Metrics:
    """Returns the parts of the evidence lower bound at β = 1, whatever the training objective is.

    Args:
        distortion: −log p(x|z), nats per example, summed over pixels, mean over the batch.
        rate: KL(q(z|x) ‖ p(z)), nats per example, summed over latents, mean over the batch.
        num_dims: H·W·C of an image.
        bin_width: width of one value of the data in the units of the likelihood. It is 1 for
            probabilities (Bernoulli) and 1/255 for densities over [0, 1] of 8-bit pixels. None if
            the data are floats, whose density has no bits.

    Returns:
        `rate`, `distortion` and `elbo` in nats per example; `elbo` is minus the sum of the other
        two, and higher is better. `bits_per_dim` = −(ELBO/D + log bin_width) / log 2, if there is a
        bin width.
    """
    elbo = -(distortion + rate)
    found = {"rate": rate, "distortion": distortion, "elbo": elbo}
    if bin_width is None:
        return found
    return found | {"bits_per_dim": bits_per_dim(elbo, num_dims=num_dims, bin_width=bin_width)}


def bits_per_dim(bound: Array, *, num_dims: int, bin_width: float) -> Array:
    """Converts a bound on log p(x), nats per example, to bits per pixel and channel.

    Lower is better. The arguments are those of `rate_distortion`.
    """
    return -(bound / num_dims + math.log(bin_width)) / math.log(2.0)


def code_use(counts: Array) -> Metrics:
    """Returns how much each code is used, over the global batch or all evaluated data.

    Args:
        counts: [Q, K], number of vectors with each code, for each of Q codebooks. Sum them over
            devices and batches first: a mean of perplexities would be too low.

    Returns:
        `perplexity` = exp(entropy of use), between 1 and K (several codebooks use their mean
        entropy); `codebook_usage`, the share of codes that are used at all; and `code_usage` [Q·K],
        each code's use divided by that of uniform use.
    """
    share = counts / counts.sum(axis=-1, keepdims=True)
    return {
        "perplexity": jnp.exp(entr(share).sum(axis=-1).mean()),
        "codebook_usage": (counts > 0).mean(),
        "code_usage": (share * counts.shape[-1]).ravel(),
    }
