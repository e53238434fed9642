"""One device's examples: who they are in the global batch, and what they add up to.

The decision: an example's noise hangs on its position in the global batch (or, in evaluation, in
the data set), so that it is the same on any mesh.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def by_position(
    batch: dict[str, Array], seed: int, step: Any, axes: Any, *, first: Any = 0
) -> tuple[dict[str, Array], Array]:
    """Returns the batch with each example's `position` [B] int32, and a key for it, [B].

    To be called inside `shard_map` over the whole mesh.

    Args:
        batch: this device's rows of the global batch.
        seed: of the run.
        step: the number of the stream that the keys are of.
        axes: the mesh's.
        first: position of the global batch's first example.
    """
    rows = batch["mask"].shape[0]
    position = jnp.int32(first) + lax.axis_index(axes) * rows + jnp.arange(rows)
    key = jax.random.fold_in(jax.random.key(seed), step)
    keys = jax.vmap(lambda p: jax.random.fold_in(key, p))(position)
    return batch | {"position": position}, keys


def summed(terms: Any, mask: Array) -> Any:
    """Returns the sums over examples, in float32, of terms [B, ...]; padding counts nothing."""
    return jax.tree.map(lambda t: jnp.tensordot(mask, t.astype(jnp.float32), axes=1), terms)
