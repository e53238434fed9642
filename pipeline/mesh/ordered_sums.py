"""Sums in one order of addition, for bits that do not depend on the mesh.

The batch is cut into shards that are the same on any mesh. One program of one shape computes each
shard, and the results are added like a tournament: neighbours first, then neighbouring pairs, and
so on.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree


def summed(
    function: Callable, examples: Any, extra: Any = None, *, axes: Any, devices: int, parts: int
) -> tuple[Any, Any]:
    """Sums as `reductions.by_all_reduce` does, with bits that depend only on devices × parts.

    Write `parts` as an odd number times 2**k. Memory holds k results of `function`, and as many
    more as the odd number.
    """
    size = parts & -parts  # 2**k: such a group lies within one device, and is part of its pairs
    groups, odd = split_up(examples, parts), parts // size
    of_group = functools.partial(_folded, _alone(function), parts=size, axes=axes)
    if odd == 1:
        stacked = jax.tree.map(lambda x: x[None], of_group(groups))
    else:
        stacked = _looped(of_group, split_up(groups, odd), odd, axes)
    # Every row carries `extra`, so its sum counts it once a row. That suffices for stop requests,
    # which only have to be above 0.
    extras = jax.tree.map(lambda x: jnp.broadcast_to(x, (odd, *x.shape)), extra)
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
    """Returns the results of `function` for each part, stacked: one program for any `parts`."""
    split, turns = _hidden(split, parts)
    one = jax.eval_shape(function, jax.tree.map(lambda x: x[0], split))
    zeros = jax.tree.map(lambda x: jnp.zeros((max(parts, 2), *x.shape), x.dtype), one)

    def turn(number, stacked):
        return jax.tree.map(
            lambda all_rows, row: lax.dynamic_update_index_in_dim(all_rows, row, number, axis=0),
            stacked,
            function(_part(split, number)),
        )

    stacked = lax.fori_loop(0, turns, turn, lax.pcast(zeros, axes, to="varying"))
    return jax.tree.map(lambda x: x[:parts], stacked)


def _folded(function: Callable, split: Any, *, parts: int, axes: Any) -> Any:
    """Returns the sum of `function` over 2**k parts, as `_tournament` adds them up.

    Loops of two turns lie in each other, one for each level of the tournament. A level has one sum,
    which its first turn replaces and its second adds to. So few arrays stay in the caches, while a
    stack of all results would be filled, written and read.
    """
    levels = max(parts.bit_length() - 1, 1)
    split, turns = _hidden(split, min(parts, 2))
    one = jax.eval_shape(function, jax.tree.map(lambda x: x[0], split))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), one)

    def level(height: int, first: Any, sums: list[Any]) -> list[Any]:
        """Puts the sum of the 2**height parts from `first` on into sums[height - 1]."""

        def turn(number, sums):
            start = first + number * 2 ** (height - 1)
            if height == 1:
                new = function(_part(split, start))
            else:
                sums = level(height - 1, start, sums)
                new = sums[height - 2]
            added = jax.tree.map(
                lambda total, term: jnp.where(number == 0, term, total + term),
                sums[height - 1],
                new,
            )
            return [*sums[: height - 1], added, *sums[height:]]

        return lax.fori_loop(0, turns, turn, sums)

    return level(levels, 0, [lax.pcast(zeros, axes, to="varying")] * levels)[-1]


def _hidden(split: Any, turns: int) -> tuple[Any, Array]:
    """Returns parts and a number of turns for a loop that is compiled alike for any number.

    The compiler lays out and fuses what is in a loop in its own way, and takes a loop of one turn
    apart. So it must see neither how many turns there are, nor arrays of one row.
    """
    if turns == 1:
        split = jax.tree.map(lambda x: jnp.concatenate([x, x]), split)
    return split, lax.optimization_barrier(jnp.int32(turns))


def _part(split: Any, number: Any) -> Any:
    """Returns one part of [parts, ...]."""
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, number, keepdims=False), split)


def _tournament(rows: Array) -> Array:
    """Adds neighbours, then neighbouring sums, and so on: [n, ...] → [...].

    A last row without a partner stays as it is. The rows are read once.
    """
    left = list(rows)
    while len(left) > 1:
        sums = [a + b for a, b in zip(left[::2], left[1::2], strict=False)]
        left = sums + left[2 * len(sums) :]
    return left[0]
