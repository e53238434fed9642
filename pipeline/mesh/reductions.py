"""Sums over the global batch, either fast or with the same bits on every mesh.

Both ways take the same function of some examples and return its sum over the examples of all
devices, so that a step is written once. `by_all_reduce` sends one flat buffer through one
all-reduce, which chooses its own order of addition. `ordered_sums` cuts the batch into shards that
are the same on any mesh, and adds in one order.

Gradients are an exception if the state is cut over the mesh (see `layouts`): each device then gets
only the sum of its own piece.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from pipeline.mesh import dependence, flat_buffers, layouts, ordered_sums
from pipeline.mesh.sharding import FSDP


def make(mesh: Mesh, *, parts: int, shards: int) -> Callable[..., tuple[Any, Any]]:
    """Returns (function, examples, extra) → sums of `function(examples)`, and of `extra`.

    Call the result inside `shard_map` over the whole mesh.

    Args:
        mesh: the devices over which it adds.
        parts: number of parts of a device's examples; only one is in memory at a time.
        shards: number of shards of the global batch, a multiple of the number of devices, for bits
            that are the same on every mesh. 0: off. If it is not 0, `parts` has no effect.
    """
    axes = mesh.axis_names
    # A device's share of the shards takes the place of `parts`: both bound what is in memory.
    if shards:
        return functools.partial(
            ordered_sums.summed, axes=axes, devices=mesh.size, parts=shards // mesh.size
        )
    return functools.partial(by_all_reduce, axes=axes, parts=parts)


def make_for_gradients(
    mesh: Mesh, *, parts: int, shards: int, squares: Callable[[Any], Any]
) -> Callable[..., tuple[Any, Any, Any, Any]]:
    """Returns (function, examples, extra) → gradients, their norms, other sums, extra's sum.

    The gradients lie on the mesh as the parameters do. `function` returns (gradients, pytree).
    `squares` returns sums of squares of gradients, or of a piece of them, as a pytree of scalars;
    the norms are the roots of the whole sums. All else is as in `make`.
    """
    if layouts.is_cut(mesh):
        return functools.partial(by_reduce_scatter, mesh=mesh, parts=parts, squares=squares)
    summed = make(mesh, parts=parts, shards=shards)

    def everywhere(function, examples, extra=None):
        (gradients, sums), extra = summed(function, examples, extra)
        # Every device holds the whole sum, so the norms need no exchange.
        return gradients, jax.tree.map(jnp.sqrt, squares(gradients)), sums, extra

    return everywhere


def means_read(
    function: Callable, forward: Callable, examples: Any, *, summed: Callable, count: int
) -> Any:
    """Returns the means of `forward` that `function` reads; all others are NaN.

    So a mean that is read by mistake shows at once.

    Args:
        function: takes the means.
        forward: maps some of a device's examples to a pytree of sums over them.
        examples: this device's examples, a pytree of [rows, ...].
        summed: from `make`; it is called only if some mean is read.
        count: number of examples of the global batch.
    """
    shapes = jax.eval_shape(forward, examples)
    means = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)
    leaves, structure = jax.tree.flatten(means)
    needed = enumerate(dependence.inputs_read(function, means))
    read = [index for index, is_read in needed if is_read]
    if not read:
        return means
    # Only the means that are read: the compiler drops the rest of this forward pass.
    few = lambda part: [jax.tree.leaves(forward(part))[i] for i in read]  # noqa: E731
    for index, total in zip(read, summed(few, examples)[0], strict=True):
        leaves[index] = total / count
    return jax.tree.unflatten(structure, leaves)


def by_all_reduce(
    function: Callable, examples: Any, extra: Any = None, *, axes: Any, parts: int
) -> tuple[Any, Any]:
    """Sums over parts and devices with one all-reduce of one flat float32 buffer.

    Args:
        function: maps some of a device's examples to a pytree of sums over them.
        examples: this device's examples, a pytree of [rows, ...].
        extra: a pytree of this device, which is added over devices in the same buffer.
        axes: names of the mesh's axes.
        parts: number of parts into which `examples` are cut.
    """
    return _all_reduced((_over_parts(function, examples, parts), extra), axes)


def by_reduce_scatter(
    function: Callable,
    examples: Any,
    extra: Any = None,
    *,
    mesh: Mesh,
    parts: int,
    squares: Callable[[Any], Any],
) -> tuple[flat_buffers.Flat, Any, Any, Any]:
    """Sums gradients with one reduce-scatter over `fsdp`, and all else with one all-reduce.

    If the mesh has other axes, a second all-reduce adds the pieces over those.

    Args:
        function: maps some of a device's examples to (gradients, pytree), both sums over them.
        examples: this device's examples, a pytree of [rows, ...].
        extra: a pytree of this device, which is added over devices.
        mesh: the devices over which it adds.
        parts: number of parts into which `examples` are cut.
        squares: as in `make_for_gradients`.

    Returns:
        This device's piece of the gradients' sum, the norms of the whole sum, the other sums, and
        the sum of `extra`.
    """
    gradients, sums = _over_parts(function, examples, parts)
    # One flat buffer takes one message, and its equal pieces match those of the parameters.
    flat = flat_buffers.flatten(gradients, mesh)
    values = lax.psum_scatter(flat.values, FSDP, tiled=True)
    others = tuple(axis for axis in mesh.axis_names if axis != FSDP)
    if others:
        values = lax.psum(values, others)
    piece = dataclasses.replace(flat, values=values)
    own = squares(piece)
    # Several devices hold the same piece, so only the first counts: else the norms are too large.
    if others:
        own = jax.tree.map(lambda s: jnp.where(lax.axis_index(others) == 0, s, 0.0), own)
    # Sent after the reduce-scatter, so that the norms share this all-reduce.
    sums, extra, total = _all_reduced((sums, extra, own), mesh.axis_names)
    return piece, jax.tree.map(jnp.sqrt, total), sums, extra


def _over_parts(function: Callable, examples: Any, parts: int) -> Any:
    """Sums over the parts of one device, one after the other."""
    split = ordered_sums.split_up(examples, parts)
    # The first part's result starts the sum, so its shapes need not be known beforehand.
    local = function(jax.tree.map(lambda x: x[0], split))
    if parts > 1:
        rest = jax.tree.map(lambda x: x[1:], split)
        body = lambda total, part: (jax.tree.map(jnp.add, total, function(part)), None)  # noqa: E731
        local = lax.scan(body, local, rest)[0]
    return local


def _all_reduced(tree: Any, axes: Any) -> Any:
    """Adds over the axes in one all-reduce of one flat buffer; on one device returns the tree."""
    if lax.axis_size(axes) == 1:
        return tree
    if len(jax.tree.leaves(tree)) == 1:
        return lax.psum(tree, axes)
    # A flat buffer is one message; a tree may become one message for each leaf.
    flat, unflatten = ravel_pytree(tree)
    return unflatten(lax.psum(flat, axes))
