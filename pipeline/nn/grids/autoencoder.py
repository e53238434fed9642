"""A pair of networks by name: images [B, H, W, C] to vectors [B, H/f, W/f, D] and back.

f is the downsampling. No activation follows the last layer: a decoder returns logits or means.
"""

from typing import Any

import jax
from flax import nnx

from pipeline.nn.grids import layers, scalable, small
from pipeline.runtime import errors, registry

NETWORKS = {
    "dense": small.dense,
    "conv": small.conv,
    "residual": small.residual,
    "scalable": scalable.scalable,
}
SIZES = {"dense": ("hidden",), "scalable": ("channels", "blocks_per_level", "channel_multipliers")}


def check(section: Any, shape: tuple[int, int, int]) -> None:
    """Raises an InputError if `config.model` does not fit images of `shape`."""
    registry.check(section.network, NETWORKS, field="model.network")
    fields = ("downsampling", *SIZES.get(section.network, ()))
    if missing := [field for field in fields if field not in section]:
        raise errors.InputError(
            f"config.model.network={section.network!r} needs the fields {', '.join(missing)}, "
            "which this config lacks: add them as configs/vq_vae.py does"
        )
    for field in fields:
        value = section[field]
        if not value or min(jax.tree.leaves(value)) < 1:
            raise errors.InputError(f"config.model.{field}={value} must be at least 1")
    factor = section.downsampling
    if section.network in ("conv", "residual") and factor != 4:
        raise errors.InputError(
            f"config.model.downsampling={factor} must be 4 for network={section.network}"
        )
    if section.network == "scalable":
        scalable.check(section)
    if shape[0] % factor or shape[1] % factor:
        fitting = "×".join(str(-(-side // factor) * factor) for side in shape[:2])
        raise errors.InputError(
            f"config.model.downsampling={factor} must divide the sides of images "
            f"{shape[0]}×{shape[1]}, as those of {fitting}"
        )


def make(
    config: Any, shape: tuple[int, int, int], dim: int, *, moments: int = 1, rngs: nnx.Rngs
) -> tuple[layers.Stack, layers.Stack]:
    """Returns the encoder to `moments`·D channels, D = `dim`, and the decoder from D channels.

    Raises:
        InputError: the network is unknown, or does not fit `shape`.
    """
    section = config.model
    check(section, shape)
    build = layers.Builder(config.compute_dtype, rngs)
    ends = layers.Ends(shape, moments * dim, dim)
    encoder, decoder = NETWORKS[section.network](section, build, ends)
    # Only the large network asks for it: in the others the images take most of the memory.
    remat = section.network == "scalable" and section.get("remat", False)
    return layers.Stack(encoder, remat=remat), layers.Stack(decoder, remat=remat)
