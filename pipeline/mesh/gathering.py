"""What a function says of every example of the global batch, gathered on every device.

Each device computes the rows of its own examples. One all-gather of one flat buffer then puts all
rows in the order of the examples' positions, which is the same on any mesh.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from pipeline.mesh import ordered_sums
from pipeline.runtime import errors


def make(mesh: Mesh, *, parts: int, shards: int) -> Callable[[Callable, Any], Any]:
    """Returns (function, examples) → `function` of the global batch, a pytree of [N, ...].

    Call the result inside `shard_map` over the whole mesh. `function` maps some of a device's
    examples to a pytree of floats [rows, ...]. `parts` and `shards` are as in `reductions.make`;
    with shards, the rows have the same bits on every mesh.

    Raises:
        InputError: `function` returns an array that is not [rows, ...] or not of floats.
    """
    axes = mesh.axis_names

    def gathered(function: Callable, examples: Any) -> Any:
        _check(jax.eval_shape(function, examples), len(jax.tree.leaves(examples)[0]))
        if shards:
            rows = ordered_sums.mapped(function, examples, axes=axes, parts=shards // mesh.size)
        elif parts > 1:
            rows = lax.map(function, ordered_sums.split_up(examples, parts))
        else:
            rows = jax.tree.map(lambda x: x[None], function(examples))
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
        return everywhere(rows, axes)

    return gathered


def everywhere(rows: Any, axes: Any) -> Any:
    """Returns the rows of all devices, [N, ...], from each device's [rows, ...]."""
    leaves, structure = jax.tree.flatten(rows)
    # A flat buffer is one message; a tree may become one message for each leaf.
    flat = jnp.concatenate([x.astype(jnp.float32).reshape(len(x), -1) for x in leaves], axis=1)
    if lax.axis_size(axes) > 1:
        flat = lax.all_gather(flat, axes, tiled=True, to="invarying")
    # One device takes the same way, and what follows must not merge with it: merged code may round
    # in another way.
    flat = lax.optimization_barrier(flat)
    whole, first = [], 0
    for leaf in leaves:
        size = leaf[0].size
        columns = flat[:, first : first + size]
        whole.append(columns.reshape(-1, *leaf.shape[1:]).astype(leaf.dtype))
        first += size
    return jax.tree.unflatten(structure, whole)


def _check(shapes: Any, rows: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.shape[:1] != (rows,):
            raise errors.InputError(
                f"`shown` returns {leaf.dtype}{list(leaf.shape)} at {jax.tree_util.keystr(path)}: "
                f"return arrays of floats with one row for each of the {rows} examples"
            )
