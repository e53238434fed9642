"""Networks of a Gaussian VAE whose latents are a grid, as in latent diffusion's KL autoencoders.

Rombach et al. 2022 (arXiv:2112.10752), section 3.1. An image has h·w·D latents. Outside of these
networks they are one row: place after place, the D latents of a place side by side.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline.nn.grids import autoencoder


class Encoder(nnx.Module):
    """Images [B, H, W, C] in [0, 1] → means and then log-variances, [B, 2·h·w·D] float32."""

    def __init__(self, grid: nnx.Module):
        """Wraps an encoder to [B, h, w, 2·D], means first."""
        self.grid = grid

    def __call__(self, image: Array) -> Array:
        """Encodes images, centred at 0."""
        moments = self.grid(image - 0.5).astype(jnp.float32)
        # The channels are split before the rows are made, so that both halves have one order.
        rows = [half.reshape(len(image), -1) for half in jnp.split(moments, 2, axis=-1)]
        return jnp.concatenate(rows, axis=-1)


class Decoder(nnx.Module):
    """Latents [B, h·w·D] → logits or means, [B, H, W, C] float32."""

    def __init__(self, grid: nnx.Module, latent_shape: tuple[int, int, int]):
        """Wraps a decoder from [B, h, w, D]."""
        self.grid, self.latent_shape = grid, latent_shape

    def __call__(self, z: Array) -> Array:
        """Decodes latents."""
        grid = z.reshape(len(z), *self.latent_shape)
        return self.grid(grid).astype(jnp.float32)


def make(config: Any, shape: tuple[int, int, int], *, rngs: nnx.Rngs) -> tuple[Encoder, Decoder]:
    """Returns an encoder and a decoder of images of `shape`, with D = `config.model.latent_dim`.

    Raises:
        InputError: as `autoencoder.make`.
    """
    section = config.model
    encoder, decoder = autoencoder.make(config, shape, section.latent_dim, moments=2, rngs=rngs)
    height, width = (side // section.downsampling for side in shape[:2])
    return Encoder(encoder), Decoder(decoder, (height, width, section.latent_dim))
