"""LPIPS as a term: its network is frozen state, which no gradient reaches.

As constants of a program, VGG's 59 MB kept the compiler for a TPU busy for more than 20 minutes.
As state they are an argument. Checkpoints hold them, so a change of the package cannot change the
objective of a run that goes on.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from pipeline.nn import frozen, perceptual


class Distance(nnx.Module):
    """LPIPS(x, x̂) of each pair; its weights are zeros until `filled` gives them."""

    def __init__(self, network: str, shape: tuple[int, int, int]):
        """Makes room for the weights of "alex" or "vgg".

        Raises:
            InputError: they are not installed, or do not take images of `shape`, (H, W, C).
        """
        known = _known(network)
        perceptual.check(shape, network)
        self.network = network
        self.weights = nnx.data(
            jax.tree.map(lambda array: frozen.Frozen(jnp.zeros(array.shape, array.dtype)), known)
        )

    def __call__(self, generated: Array, image: Array) -> Array:
        """Returns the distance of each pair of images, [B]; both are [B, H, W, C]."""
        return perceptual.distances(
            nnx.as_pure(self.weights),
            generated,
            image,
            network=self.network,
            precision=lax.Precision.DEFAULT,
        )


def filled(weights: Any, network: str) -> Any:
    """Returns the weights of `network` in the form of `weights`, a branch of the state."""
    return jax.tree.unflatten(jax.tree.structure(weights), jax.tree.leaves(_known(network)))


@functools.cache  # a start builds the model many times, and VGG's weights are a file of 59 MB
def _known(network: str) -> perceptual.Weights:
    return perceptual.load(network, field="model.perceptual.network")
