"""One device's examples: their images as a model takes them, their positions, and their sums.

Images travel in their own dtype and are scaled here. An example's noise depends on its position in
the global batch (in evaluation: in the data set), so it is the same on any mesh.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from pipeline import datasets


def by_position(
    batch: dict[str, Array], seed: Any, step: Any, axes: Any, *, first: Any = 0
) -> tuple[dict[str, Array], Array]:
    """Returns the batch with each example's `position` [B] int32, and a key for each, [B].

    Call this inside `shard_map` over the whole mesh.

    Args:
        batch: this device's rows of the global batch.
        seed: of the run, or uint32 scalar of a replica.
        step: number of the random stream: the step, or one that `nn.streams` reserves.
        axes: names of the mesh's axes.
        first: position of the global batch's first example.
    """
    rows = batch["mask"].shape[0]
    position = jnp.int32(first) + lax.axis_index(axes) * rows + jnp.arange(rows)
    key = jax.random.fold_in(jax.random.key(seed), step)
    keys = jax.vmap(lambda p: jax.random.fold_in(key, p))(position)
    return batch | {"position": position}, keys


def scaled(batch: dict[str, Array], example: Any) -> dict[str, Array]:
    """Returns the batch with images that a model takes: bytes of 0 … 255, or float32 in [0, 1].

    Args:
        batch: [B, ...] each; without `image` nothing changes.
        example: abstract example of the data set, whose `image` has the range.
    """
    if "image" not in batch or (pixels := datasets.pixels_of(example["image"])).is_plain:
        return batch
    return batch | {"image": pixels.unit(batch["image"])}


def arguments(method: str, given: tuple, example: Any) -> tuple:
    """Returns the arguments of a model's method with images as in `scaled`.

    Args:
        method: its name; only the first argument of `encode` is an array of images.
        given: batches, images, latents, codes or keys.
        example: as in `scaled`.
    """
    if method == "encode":
        return scaled({"image": given[0]}, example)["image"], *arguments("", given[1:], example)
    return tuple(scaled(one, example) if isinstance(one, dict) else one for one in given)


def summed(terms: Any, mask: Array) -> Any:
    """Returns the masked sums over examples, float32, of terms [B, ...]; padding adds nothing."""
    return jax.tree.map(lambda t: jnp.tensordot(mask, t.astype(jnp.float32), axes=1), terms)
