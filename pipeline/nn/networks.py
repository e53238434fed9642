"""Encoders and decoders by name: stride-2 convolutions (possibly none), and dense layers.

Activations are ReLU, and none follows the last layer: a decoder returns logits or means. A ReLU
before the likelihood's sigmoid would confine the pixels to [½, 1).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline.nn import convolutions
from pipeline.nn.grids import latents
from pipeline.runtime import errors, registry

Shape = tuple[int, int, int]
Layers = tuple[tuple[int, int], ...]


class Dense(nnx.Module):
    """Linear layers with ReLU between them and none at the end: [B, F] → [B, widths[-1]]."""

    def __init__(self, num_inputs: int, widths: Sequence[int], *, dtype: Any, rngs: nnx.Rngs):
        """Builds len(widths) layers with float32 parameters and arithmetic in `dtype`."""
        sizes = (num_inputs, *widths)
        self.layers = nnx.List(
            nnx.Linear(inputs, outputs, dtype=dtype, rngs=rngs)
            for inputs, outputs in itertools.pairwise(sizes)
        )

    def __call__(self, x: Array) -> Array:
        """Applies the layers."""
        return self.after_first(self.layers[0](x))

    def after_first(self, x: Array) -> Array:
        """Applies all layers after the first, whose outputs are `x` [B, widths[0]]."""
        for layer in list(self.layers)[1:]:
            x = layer(jax.nn.relu(x))
        return x


class Architecture(NamedTuple):
    """The parameters of a network in this family.

    `convs` are (output channels, kernel size) from the image down. `deconvs` are (input channels,
    kernel size) from the smallest map up; the last one returns the image's channels. `dense_layers`
    builds the dense layers.
    """

    convs: Layers
    hidden: tuple[int, ...]
    decoder_hidden: tuple[int, ...]
    deconvs: Layers
    dense_layers: Callable[..., Any] = Dense


def dense(shape: Shape, section: Any) -> Architecture:
    """A multilayer perceptron with the layers `hidden`, mirrored in the decoder."""
    del shape
    widths = tuple(section.hidden)
    errors.check_range("config.model.hidden", min(widths, default=1), 1)
    return Architecture((), widths, widths[::-1], ())


def burgess(shape: Shape, section: Any) -> Architecture:
    """Burgess et al. 2018 (arXiv:1804.03599), appendix A.1: 4×4 convolutions of 32 channels.

    There is one convolution for each halving down to 4×4 (64×64 has four), then two dense layers of
    256. The halving stops at odd sides, so 28×28 has two convolutions.
    """
    del section
    num_layers, side = 0, shape[:2]
    while min(side) > 4 and side[0] % 2 == 0 and side[1] % 2 == 0:
        num_layers, side = num_layers + 1, (side[0] // 2, side[1] // 2)
    layers = ((32, 4),) * num_layers
    return Architecture(layers, (256, 256), (256, 256), layers)


def locatello(shape: Shape, section: Any) -> Architecture:
    """Locatello et al. 2019 (arXiv:1811.12359), table 1: the network of disentanglement_lib."""
    del section
    if shape[0] % 16 or shape[1] % 16:
        fitting = "×".join(str(-(-side // 16) * 16) for side in shape[:2])
        raise errors.InputError(
            f"config.model.network='locatello' needs sides that 16 divides, not "
            f"{shape[0]}×{shape[1]}: use network=conv or network=dense, or images of {fitting}"
        )
    convs = ((32, 4), (32, 4), (64, 2), (64, 2))
    return Architecture(convs, (256,), (256,), ((64, 4), (64, 4), (32, 4), (32, 4)))


ARCHITECTURES = {"dense": dense, "conv": burgess, "locatello": locatello}
GRID = "scalable"  # whose latents are a grid; it has no dense layers


class Encoder(nnx.Module):
    """Stride-2 convolutions, then dense layers: [B, H, W, C] → [B, num_outputs] float32."""

    def __init__(
        self, net: Architecture, shape: Shape, num_outputs: int, *, dtype: Any, rngs: nnx.Rngs
    ):
        """Builds the encoder of `net` for images of `shape`."""
        channels, convs = shape[2], []
        for width, kernel in net.convs:
            convs.append(
                convolutions.Conv(
                    channels, width, kernel_size=kernel, stride=2, dtype=dtype, rngs=rngs
                )
            )
            channels = width
        self.convs = nnx.List(convs)
        flat = (shape[0] >> len(convs)) * (shape[1] >> len(convs)) * channels
        self.dense = net.dense_layers(flat, (*net.hidden, num_outputs), dtype=dtype, rngs=rngs)

    def __call__(self, image: Array, *condition: Array) -> Array:
        """Encodes images; dense layers that need a condition get `condition`, [B, E]."""
        x = image
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return self.dense(x.reshape(x.shape[0], -1), *condition).astype(jnp.float32)


class Decoder(nnx.Module):
    """Dense layers, then stride-2 transposed convolutions: [B, D] → [B, H, W, C] float32."""

    def __init__(
        self, net: Architecture, num_inputs: int, shape: Shape, *, dtype: Any, rngs: nnx.Rngs
    ):
        """Builds the decoder of `net` for images of `shape`."""
        channels = (*(width for width, _ in net.deconvs), shape[2])
        halvings, self.latent_shape = len(net.deconvs), (num_inputs,)
        self.smallest = (shape[0] >> halvings, shape[1] >> halvings, channels[0])
        widths = (*net.decoder_hidden, math.prod(self.smallest))
        self.dense = net.dense_layers(num_inputs, widths, dtype=dtype, rngs=rngs)
        self.deconvs = nnx.List(
            convolutions.ConvTranspose(
                channels[i], channels[i + 1], kernel_size=kernel, stride=2, dtype=dtype, rngs=rngs
            )
            for i, (_, kernel) in enumerate(net.deconvs)
        )

    def __call__(self, z: Array, *condition: Array) -> Array:
        """Decodes latents to logits or means; `condition` is as in `Encoder`."""
        x = self.dense(z, *condition).reshape(z.shape[0], *self.smallest)
        for deconv in self.deconvs:
            x = deconv(jax.nn.relu(x))
        return x.astype(jnp.float32)


def autoencoder(
    config: Any, shape: Shape, *, rngs: nnx.Rngs, dense_layers: Callable[..., Any] = Dense
) -> tuple[Any, Any]:
    """Returns an encoder to means and log-variances, [B, 2·L], and a decoder of latents [B, L].

    L is D, or h·w·D of a grid. The decoder's `latent_shape` is (D,), or (h, w, D).

    Args:
        config: the whole config; reads `model.network`, `model.latent_dim`, `compute_dtype`, and
            the sizes of the network.
        shape: (H, W, C) of an image.
        rngs: the stream `params`.
        dense_layers: builds dense layers; those of `nn.conditioning` also see a condition.

    Raises:
        InputError: the network is unknown or does not fit `shape`, or a size is below 1; or a
            network without dense layers is to see a condition.
    """
    section = config.model
    errors.check_range("config.model.latent_dim", section.latent_dim, 1)
    registry.check(section.network, (*ARCHITECTURES, GRID), field="model.network")
    if section.network == GRID:
        if dense_layers is not Dense:
            raise errors.InputError(
                f"config.model.network={GRID!r} has no dense layers, which conditions enter by: "
                "use network=conv, or a model without conditions such as beta_vae"
            )
        return latents.make(config, shape, rngs=rngs)
    net = ARCHITECTURES[section.network](shape, section)._replace(dense_layers=dense_layers)
    dtype = config.compute_dtype
    return (
        Encoder(net, shape, 2 * section.latent_dim, dtype=dtype, rngs=rngs),
        Decoder(net, section.latent_dim, shape, dtype=dtype, rngs=rngs),
    )


def unit_interval(image: Array) -> Array:
    """Converts bytes [B, H, W, C] to float32 in [0, 1]; floats are scaled by now and unchanged."""
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 255.0
    assert jnp.issubdtype(image.dtype, jnp.floating), image.dtype
    return image
