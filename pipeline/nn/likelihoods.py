"""The likelihood p(x|z) that `config.model.likelihood` names, with its σ if it has one."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline.nn import losses, metrics
from pipeline.runtime import errors, registry

NAMES = ("bernoulli", "gaussian")
# A learned σ stays above e⁻⁶: below the resolution of 8-bit pixels the density could grow without
# limit.
MIN_LOG_SIGMA = -6.0


class Likelihood(nnx.Module):
    """Scores and displays a decoder's outputs: logits (bernoulli) or means (gaussian)."""

    def __init__(self, config: Any, *, resolution: float | None = 1.0 / 255.0):
        """Reads `likelihood`, `learn_sigma` and, for a Gaussian, `sigma` of the section `model`.

        `resolution` is the distance of neighbouring values of a pixel in [0, 1], None for floats.

        With `learn_sigma`, one σ for all pixels is a parameter that starts at `sigma`. This is the
        σ-VAE of Rybkin et al. 2021 (arXiv:2006.13202).

        Raises:
            InputError: the name is unknown, σ is not positive and finite, or σ cannot be learned.
        """
        registry.check(config.likelihood, NAMES, field="model.likelihood")
        if config.learn_sigma and config.likelihood != "gaussian":
            raise errors.InputError(
                "config.model.learn_sigma=True needs config.model.likelihood='gaussian', "
                f"not {config.likelihood!r}"
            )
        self.name, self.resolution = config.likelihood, resolution
        self.log_sigma: nnx.Param | float
        if self.name == "bernoulli":
            self.log_sigma = 0.0
            return
        if not (math.isfinite(config.sigma) and config.sigma > 0):
            raise errors.InputError(f"config.model.sigma={config.sigma} must be positive")
        log_sigma = math.log(config.sigma)
        if config.learn_sigma and log_sigma <= MIN_LOG_SIGMA:
            raise errors.InputError(
                f"config.model.sigma={config.sigma} must be above e⁻⁶ ≈ 0.0025 to be learned"
            )
        # log σ is its least value plus the parameter's softplus: clipping would have no gradient.
        if config.learn_sigma:
            start = math.log(math.expm1(log_sigma - MIN_LOG_SIGMA))  # softplus⁻¹
            self.log_sigma = nnx.Param(jnp.float32(start))
        else:
            self.log_sigma = log_sigma

    @property
    def sigma(self) -> Array:
        """σ, in units of the image's [0, 1] range."""
        if isinstance(self.log_sigma, nnx.Param):
            return jnp.exp(MIN_LOG_SIGMA + jax.nn.softplus(self.log_sigma[...]))
        return jnp.float32(math.exp(self.log_sigma))

    @property
    def bin_width(self) -> float | None:
        """Width of one value: 1 for probabilities, `resolution` for densities over [0, 1]."""
        return self.resolution if self.name == "gaussian" else 1.0

    def nll(self, outputs: Array, image: Array) -> Array:
        """Returns −log p(image | outputs), [B] nats, summed over pixels.

        Args:
            outputs: [B, H, W, C] logits or means.
            image: [B, H, W, C] in [0, 1].
        """
        if self.name == "bernoulli":
            return losses.bernoulli_nll(outputs, image)
        return losses.gaussian_nll(outputs, image, log_sigma=jnp.log(self.sigma))

    def mean(self, outputs: Array) -> Array:
        """Returns the expected image, [B, H, W, C]; that of a Gaussian may leave [0, 1]."""
        return jax.nn.sigmoid(outputs) if self.name == "bernoulli" else outputs

    def display(self, outputs: Array) -> Array:
        """Returns the expected image, [B, H, W, C] in [0, 1], for pictures."""
        return jnp.clip(self.mean(outputs), 0.0, 1.0)

    def metrics(self, *, distortion: Array, rate: Array, num_dims: int) -> metrics.Metrics:
        """Returns `metrics.rate_distortion` with this `bin_width`, and `sigma` of a Gaussian.

        Args:
            distortion: mean of `nll` over the batch, nats per example.
            rate: KL(q(z|x) ‖ p(z)), nats per example, summed over latents, mean over the batch.
            num_dims: H·W·C of an image.
        """
        bound = metrics.rate_distortion(
            distortion=distortion, rate=rate, num_dims=num_dims, bin_width=self.bin_width
        )
        return bound | ({"sigma": self.sigma} if self.name == "gaussian" else {})
