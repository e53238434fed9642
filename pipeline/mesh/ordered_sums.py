"""Sums in one order of addition, for bits that do not depend on the mesh.

The batch is cut into shards that are the same on any mesh. One program of one shape computes each
shard, and the results are added like a tournament: neighbours first, then neighbouring pairs, and
so on.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

# Parts whose results are kept and then added up in one pass. With pairs, each sum of two would be
# written and read again.
GROUP = 8


def summed(
    function: Callable, examples: Any, extra: Any = None, *, axes: Any, devices: int, parts: int
) -> tuple[Any, Any]:
    """Sums as `reductions.by_all_reduce` does, with bits that depend only on devices × parts.

    Write `parts` as an odd number times a power of 2. Memory holds the results of GROUP parts for
    each factor GROUP, and of as many more as the odd number.
    """
    split, function, grouped = split_up(examples, parts), _alone(function), parts % 2 == 0
    # These groups of the tournament lie within one device; another mesh forms the same pairs.
    while parts % 2 == 0:
        size = math.gcd(parts, GROUP)
        split, function = split_up(split, parts // size), _of_group(function, size, axes)
        parts //= size
    if parts == 1 and grouped:  # what a group does is in a loop already
        stacked = jax.tree.map(lambda x: x[None], function(jax.tree.map(lambda x: x[0], split)))
    else:
        stacked = _looped(function, split, parts, axes)
    # Every row carries `extra`, so its sum counts it once a row. That suffices for stop requests,
    # which only have to be above 0.
    extras = jax.tree.map(lambda x: jnp.broadcast_to(x, (parts, *x.shape)), extra)
    first, unflatten = ravel_pytree(jax.tree.map(lambda x: x[0], (stacked, extras)))
    rows = jax.vmap(lambda tree: ravel_pytree(tree)[0])((stacked, extras))
    # Each device adds up one piece of the buffer, and then all gather the pieces. That sends as
    # many bytes as an all-reduce. Gathering every buffer would send devices / 2 times as many.
    rows = jnp.pad(rows, ((0, 0), (0, -first.size % devices)))
    rows = lax.all_to_all(rows, axes, split_axis=1, concat_axis=0, tiled=True)
    # Rows lie in the order of the shards, which decides the pairs and so the bits.
    flat = lax.all_gather(_tournament(rows), axes, tiled=True, to="invarying")[: first.size]
    # What follows must not merge with the sum: merged code may round in another way.
    return unflatten(lax.optimization_barrier(flat))


def mapped(function: Callable, examples: Any, *, axes: Any, parts: int) -> Any:
    """Returns `function` of every part, stacked as [parts, ...], with bits as `summed` has."""
    return _looped(_alone(function), split_up(examples, parts), parts, axes)


def alone(function: Callable, whole: Any) -> Any:
    """Returns `function(whole)` of what is equal on all devices, with bits as `summed` has."""
    split = jax.tree.map(lambda x: x[None], whole)
    return jax.tree.map(lambda x: x[0], _looped(_alone(function), split, 1, ()))


def split_up(examples: Any, parts: int) -> Any:
    """Returns examples [rows, ...] as [parts, rows / parts, ...]."""
    return jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), examples)


def _alone(function: Callable) -> Callable:
    """Keeps the compiler from merging `function` with the code around it."""
    return lambda part: lax.optimization_barrier(function(lax.optimization_barrier(part)))


def _looped(function: Callable, split: Any, parts: int, axes: Any) -> Any:
    """Returns the results of `function` for each part, stacked: one program for any `parts`.

    The compiler lays out and fuses what is in a loop in its own way, and takes a loop of one turn
    apart. So it must see neither how many turns there are, nor arrays of one row.
    """
    rows = max(parts, 2)
    if parts == 1:
        split = jax.tree.map(lambda x: jnp.concatenate([x, x]), split)
    one = jax.eval_shape(function, jax.tree.map(lambda x: x[0], split))
    zeros = jax.tree.map(lambda x: jnp.zeros((rows, *x.shape), x.dtype), one)

    def turn(number, stacked):
        part = jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, number, keepdims=False), split)
        return jax.tree.map(
            lambda all_rows, row: lax.dynamic_update_index_in_dim(all_rows, row, number, axis=0),
            stacked,
            function(part),
        )

    turns = lax.optimization_barrier(jnp.int32(parts))
    stacked = lax.fori_loop(0, turns, turn, lax.pcast(zeros, axes, to="varying"))
    return jax.tree.map(lambda x: x[:parts], stacked)


def _of_group(function: Callable, size: int, axes: Any) -> Callable:
    """Returns the sum of `size` results of `function`; a loop calls it, so it is compiled once."""
    return lambda group: jax.tree.map(_tournament, _looped(function, group, size, axes))


def _tournament(rows: Array) -> Array:
    """Adds neighbours, then neighbouring sums, and so on: [n, ...] → [...].

    A last row without a partner stays as it is. The rows are read once.
    """
    left = list(rows)
    while len(left) > 1:
        sums = [a + b for a, b in zip(left[::2], left[1::2], strict=False)]
        left = sums + left[2 * len(sums) :]
    return left[0]
