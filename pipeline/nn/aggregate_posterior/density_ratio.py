"""The total correlation of q(z), from a discriminator that tells z from permuted z.

Kim & Mnih 2018 (arXiv:1802.05983), section 3. If each latent of a batch is permuted by itself, the
batch looks like draws of Π_j q(z_j). A discriminator whose logit is log D/(1 − D) then approaches
log q(z) − Σ_j log q(z_j), and the mean of that over q(z) is the total correlation.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from pipeline.runtime import errors


def permuted(z: Array, numbers: Array, mask: Array) -> Array:
    """Returns z [B, D] with each latent permuted over the true examples, by itself.

    Padding changes nothing.

    Args:
        z: [B, D].
        numbers: [B, D], drawn at random by each example; sorting by them permutes.
        mask: [B], 0 if the example is padding.
    """
    # With padding last, the true examples come first, in a random order.
    padding = jnp.broadcast_to(mask[:, None] == 0, z.shape)
    sorted_z = lax.sort((padding, numbers, z), dimension=0, num_keys=2)[2]
    place = jnp.cumsum(mask) - 1  # among the true examples
    return sorted_z[place.astype(jnp.int32)]


class Discriminator(nnx.Module):
    """Linear layers with leaky ReLU of slope 0.2 between them: [B, D] → logits [B], float32."""

    def __init__(self, num_latents: int, hidden: Sequence[int], *, dtype: Any, rngs: nnx.Rngs):
        """Builds len(hidden) + 1 layers with float32 parameters and arithmetic in `dtype`.

        Raises:
            InputError: there is no hidden layer.
        """
        if not hidden:
            raise errors.InputError(
                "config.model.discriminator.hidden=() must name a layer's width: without one the "
                "discriminator sees no dependence between latents"
            )
        sizes = (num_latents, *hidden, 1)
        self.layers = nnx.List(
            nnx.Linear(inputs, outputs, dtype=dtype, rngs=rngs)
            for inputs, outputs in itertools.pairwise(sizes)
        )

    def __call__(self, z: Array) -> Array:
        """Returns log D(z)/(1 − D(z)) for each example."""
        first, *others = self.layers
        x = first(z)
        for layer in others:
            x = layer(jax.nn.leaky_relu(x, 0.2))
        return x[:, 0].astype(jnp.float32)
