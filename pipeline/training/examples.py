"""One device's examples: their positions in the global batch, and their sums.

An example's noise depends on its position in the global batch (in evaluation: in the data set), so
it is the same on any mesh.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def by_position(
    batch: dict[str, Array], seed: int, step: Any, axes: Any, *, first: Any = 0
) -> tuple[dict[str, Array], Array]:
    """Returns the batch with each example's `position` [B] int32, and a key for each, [B].

    Call this inside `shard_map` over the whole mesh.

    Args:
        batch: this device's rows of the global batch.
        seed: of the run.
        step: number of the random stream: the step, or one that `nn.streams` reserves.
        axes: names of the mesh's axes.
        first: position of the global batch's first example.
    """
    rows = batch["mask"].shape[0]
    position = jnp.int32(first) + lax.axis_index(axes) * rows + jnp.arange(rows)
    key = jax.random.fold_in(jax.random.key(seed), step)
    keys = jax.vmap(lambda p: jax.random.fold_in(key, p))(position)
    return batch | {"position": position}, keys


def summed(terms: Any, mask: Array) -> Any:
    """Returns the masked sums over examples, float32, of terms [B, ...]; padding adds nothing."""
    return jax.tree.map(lambda t: jnp.tensordot(mask, t.astype(jnp.float32), axes=1), terms)
