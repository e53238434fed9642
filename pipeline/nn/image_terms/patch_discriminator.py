"""A discriminator that judges patches of an image: Isola et al. 2017, appendix 6.1.2.

arXiv:1611.07004. The paper normalises by the batch, which would couple examples. Here groups of
channels of one example are normalised.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline.nn import convolutions
from pipeline.runtime import errors


class PatchDiscriminator(nnx.Module):
    """Convolutions of 4×4 that halve an image `num_layers` times: [B, H, W, C] → [B, h, w] logits.

    With three layers a logit sees 70×70 pixels, with two 34×34, with one 16×16.
    """

    def __init__(self, section: Any, shape: tuple[int, int, int], *, dtype: Any, rngs: nnx.Rngs):
        """Builds `num_layers` layers of stride 2 and two of stride 1; the first has `channels`.

        Args:
            section: `config.model.adversarial`.
            shape: (H, W, C) of an image.
            dtype: of the arithmetic; parameters and logits are float32.
            rngs: the stream `params`.

        Raises:
            InputError: a size cannot work.
        """
        for name in ("channels", "num_layers"):
            errors.check_range(f"config.model.adversarial.{name}", section[name], 1)
        least = 2**section.num_layers
        if min(shape[:2]) < least:
            raise errors.InputError(
                f"config.model.adversarial.num_layers={section.num_layers} halves images to "
                f"nothing: it needs {least} pixels a side, and they have {shape[0]}×{shape[1]}"
            )
        # Each layer has twice the channels of the one before, up to eight times the first's.
        widths = [section.channels * min(2**k, 8) for k in range(section.num_layers + 1)]
        strides = (*(2,) * section.num_layers, 1)
        self.first = convolutions.Conv(shape[2], widths[0], dtype=dtype, rngs=rngs)
        self.convs = nnx.List(
            convolutions.Conv(widths[k - 1], widths[k], stride=strides[k], dtype=dtype, rngs=rngs)
            for k in range(1, len(widths))
        )
        # At least four channels a group: one alone would lose its mean, and so all that is flat.
        self.norms = nnx.List(
            nnx.GroupNorm(
                width, num_groups=math.gcd(32, max(width // 4, 1)), dtype=dtype, rngs=rngs
            )
            for width in widths[1:]
        )
        self.last = convolutions.Conv(widths[-1], 1, stride=1, dtype=dtype, rngs=rngs)

    def __call__(self, image: Array) -> Array:
        """Returns a logit for each patch, float32: above 0 it holds the patch for a true one.

        Args:
            image: [B, H, W, C], in [0, 1] if it is a true one.
        """
        x = jax.nn.leaky_relu(self.first(2.0 * image - 1.0), 0.2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.leaky_relu(norm(conv(x)), 0.2)
        return self.last(x)[..., 0].astype(jnp.float32)
