"""Sums over the global batch: the fastest way, or one whose bits are the same on every mesh.

The one decision: both ways take the same function of some examples and return its sum over the
examples of all devices, so that a step is written once. `by_all_reduce` sends one flat buffer
through one all-reduce, which adds in an order of its own. `in_order` cuts the batch into shards
that are the same on any mesh, runs one program of one shape for each of them, and adds their
results as a tournament does: neighbours first, then neighbouring pairs, and so on.

Gradients of state that is cut over the mesh (see `layouts`) are the exception: each device gets the
sum of its piece alone.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from pipeline.mesh import flat_buffers, layouts
from pipeline.mesh.sharding import FSDP


def make(mesh: Mesh, *, parts: int, shards: int) -> Callable[..., tuple[Any, Any]]:
    """Returns (function, examples, extra) → sums of `function(examples)`, and of `extra`.

    To be called inside `shard_map` over the whole mesh.

    Args:
        mesh: its devices.
        parts: into which a device's examples are cut, one in memory at a time.
        shards: into which the global batch is cut, for bits that no mesh changes; a multiple of
            the number of devices. 0: off; else `parts` is moot.
    """
    axes = mesh.axis_names
    if shards:
        return functools.partial(in_order, axes=axes, devices=mesh.size, parts=shards // mesh.size)
    return functools.partial(by_all_reduce, axes=axes, parts=parts)


def make_for_gradients(
    mesh: Mesh, *, parts: int, shards: int
) -> Callable[..., tuple[Any, Array, Any, Any]]:
    """Returns (function, examples, extra) → gradients, their global norm, other sums, extra's sum.

    The gradients are as the parameters lie on the mesh. `function` returns (gradients, pytree), the
    rest is as in `make`.
    """
    if layouts.is_cut(mesh):
        return functools.partial(by_reduce_scatter, mesh=mesh, parts=parts)
    summed = make(mesh, parts=parts, shards=shards)

    def everywhere(function, examples, extra=None):
        (gradients, sums), extra = summed(function, examples, extra)
        squares = sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradients))
        return gradients, jnp.sqrt(squares), sums, extra

    return everywhere


def by_all_reduce(
    function: Callable, examples: Any, extra: Any = None, *, axes: Any, parts: int
) -> tuple[Any, Any]:
    """Sums over parts and devices with one all-reduce of one flat float32 buffer.

    Args:
        function: some of a device's examples → a pytree of sums over them.
        examples: this device's, a pytree of [rows, ...].
        extra: a pytree of this device, to be added over devices in the same buffer.
        axes: the mesh's.
        parts: into which `examples` are cut.
    """
    return _all_reduced((_over_parts(function, examples, parts), extra), axes)


def by_reduce_scatter(
    function: Callable, examples: Any, extra: Any = None, *, mesh: Mesh, parts: int
) -> tuple[flat_buffers.Flat, Array, Any, Any]:
    """Sums gradients with one reduce-scatter over `fsdp`, all else with one all-reduce.

    Where there are other axes, the pieces are added over them in an all-reduce of their own.

    Args:
        function: some of a device's examples → (gradients, pytree), sums over them.
        examples: this device's, a pytree of [rows, ...].
        extra: a pytree of this device, to be added over devices.
        mesh: its devices.
        parts: into which `examples` are cut.

    Returns:
        This device's piece of the gradients' sum, the norm of all of it, and the other sums.
    """
    gradients, sums = _over_parts(function, examples, parts)
    flat = flat_buffers.flatten(gradients, mesh)
    values = lax.psum_scatter(flat.values, FSDP, tiled=True)
    others = tuple(axis for axis in mesh.axis_names if axis != FSDP)
    if others:
        values = lax.psum(values, others)
    squares = jnp.vdot(values, values)
    if others:  # several devices hold the same piece, and the first of them counts
        squares = jnp.where(lax.axis_index(others) == 0, squares, 0.0)
    # The sums could travel before; behind the pieces they save the norm an all-reduce of its own.
    sums, extra, squares = _all_reduced((sums, extra, squares), mesh.axis_names)
    return dataclasses.replace(flat, values=values), jnp.sqrt(squares), sums, extra


def in_order(
    function: Callable, examples: Any, extra: Any = None, *, axes: Any, devices: int, parts: int
) -> tuple[Any, Any]:
    """Sums as `by_all_reduce` does, with the same bits wherever devices × parts is the same.

    In memory at once are the results of two parts for each power of 2 in `parts`, and of as many
    more as the odd rest of it.
    """
    split, function = _split(examples, parts), _alone(function)
    # Pairs that lie within one device on this mesh; the order is that of any other mesh.
    while parts % 2 == 0:
        split, function, parts = _split(split, parts // 2), _of_pair(function), parts // 2
    stacked = lax.map(function, split)
    extras = jax.tree.map(lambda x: jnp.broadcast_to(x, (parts, *x.shape)), extra)
    first, unflatten = ravel_pytree(jax.tree.map(lambda x: x[0], (stacked, extras)))
    rows = jax.vmap(lambda tree: ravel_pytree(tree)[0])((stacked, extras))
    # Each device adds up one piece of the buffer, and all get all pieces: as many bytes as in an
    # all-reduce, where gathering every buffer would take half the number of devices times as many.
    rows = jnp.pad(rows, ((0, 0), (0, -first.size % devices)))
    rows = lax.all_to_all(rows, axes, split_axis=1, concat_axis=0, tiled=True)
    while len(rows) > 1:
        rows = _pairs(rows)
    flat = lax.all_gather(rows[0], axes, tiled=True, to="invarying")[: first.size]
    return unflatten(lax.optimization_barrier(flat))


def _over_parts(function: Callable, examples: Any, parts: int) -> Any:
    split = _split(examples, parts)
    local = function(jax.tree.map(lambda x: x[0], split))
    if parts > 1:
        rest = jax.tree.map(lambda x: x[1:], split)
        body = lambda total, part: (jax.tree.map(jnp.add, total, function(part)), None)  # noqa: E731
        local = lax.scan(body, local, rest)[0]
    return local


def _all_reduced(tree: Any, axes: Any) -> Any:
    """Adds over the axes in one all-reduce of one flat buffer; one device has nothing to add."""
    if lax.axis_size(axes) == 1:
        return tree
    if len(jax.tree.leaves(tree)) == 1:
        return lax.psum(tree, axes)
    flat, unflatten = ravel_pytree(tree)
    return unflatten(lax.psum(flat, axes))


def _split(examples: Any, parts: int) -> Any:
    return jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), examples)


def _alone(function: Callable) -> Callable:
    """Keeps the compiler from merging `function` with what stands around it."""
    return lambda part: lax.optimization_barrier(function(lax.optimization_barrier(part)))


def _of_pair(function: Callable) -> Callable:
    """Returns the sum of two results of `function`, from a loop: it is compiled once."""
    return lambda two: jax.tree.map(lambda x: x[0] + x[1], lax.map(function, two))


def _pairs(rows: Array) -> Array:
    """Adds neighbours, [n, ...] → [⌈n/2⌉, ...]; a last one without a partner is kept."""
    even = len(rows) // 2 * 2
    return jnp.concatenate([rows[0:even:2] + rows[1:even:2], rows[even:]])
