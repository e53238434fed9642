"""Quantities that are logged, computed from means and sums over the global batch or data set."""

import math

from jax import Array

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
    bits = -(elbo / num_dims + math.log(bin_width)) / math.log(2.0)
    return {"rate": rate, "distortion": distortion, "elbo": elbo, "bits_per_dim": bits}
