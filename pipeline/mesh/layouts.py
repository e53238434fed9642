"""How the state lies on the mesh: whole on every device, or cut over the axis `fsdp`.

With that axis, the parameters are one flat float32 buffer, of which each device holds one piece. So
is every tree that the optimizer keeps in their shape (ZeRO, Rajbhandari et al. 2020,
arXiv:1910.02054). A step then gathers one buffer and scatters another, for any model and any number
of devices. During a step, every device holds all parameters and all gradients.

Without that axis, and in checkpoints, the state is the tree of the model. If a function here
accepts both forms, it returns a tree unchanged.
"""

import dataclasses
import functools
from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pipeline.mesh import sharding
from pipeline.mesh.flat_buffers import Flat, Form, flatten, unflatten
from pipeline.mesh.sharding import FSDP

# Functions of a whole state.


def laid_out(state: Any, mesh: Mesh) -> Any:
    """Returns a state of shapes and dtypes as it lies on the mesh, each leaf with its sharding.

    The parameters of `state` are a tree.
    """
    flat = state
    if is_cut(mesh):
        function = lambda tree: flatten(tree, mesh)  # noqa: E731
        flat = jax.eval_shape(lambda state: _flattened(state, function), state)
    where = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(flat))
    return _with_shardings(flat, where)


def specs(state: Any) -> Any:
    """Returns how each leaf of a laid-out state is cut over its mesh."""
    return jax.tree.map(
        lambda node: dataclasses.replace(node, values=P(FSDP)) if is_flat(node) else P(),
        state,
        is_leaf=is_flat,
    )


def to_tree(state: Any) -> Any:
    """Returns the state as a checkpoint's tree, with its arrays cut over the mesh."""
    return jax.tree.map(
        lambda node: _to_cut_tree(node.form)(node) if is_flat(node) else node,
        state,
        is_leaf=is_flat,
    )


def from_tree(state: Any, mesh: Mesh) -> Any:
    """Returns a state from `to_tree` as it lies on the mesh."""
    return _flattened(state, _to_buffer(mesh)) if is_cut(mesh) else state


def of_tree(state: Any, mesh: Mesh) -> Any:
    """Returns shapes and dtypes of what `to_tree` returns, each leaf with its sharding."""
    whole = sharding.replicated(mesh)
    where = jax.tree.map(lambda leaf: whole, state)
    if is_cut(mesh):
        cut = functools.partial(
            jax.tree.map, lambda leaf: NamedSharding(mesh, _cut(leaf.shape, mesh))
        )
        where = dataclasses.replace(where, params=cut(state.params), opt_state=cut(state.opt_state))
    return _with_shardings(state, where)


def is_cut(mesh: Mesh) -> bool:
    """Returns whether state is cut over the mesh."""
    return FSDP in mesh.axis_names


# Functions of the parameters.


def is_flat(tree: Any) -> bool:
    """Returns whether the tree is a flat buffer."""
    return isinstance(tree, Flat)


def whole(params: Any) -> Any:
    """Returns the whole tree on every device; call this under `jit`."""
    if not is_flat(params):
        return params
    everywhere = sharding.replicated(params.form.mesh)
    values = lax.with_sharding_constraint(params.values, everywhere)
    return unflatten(dataclasses.replace(params, values=values))


def gathered(params: Any) -> Any:
    """Returns the whole tree on every device by one all-gather; call this inside `shard_map`."""
    if not is_flat(params):
        return params
    values = lax.all_gather(params.values, FSDP, tiled=True, to="invarying")
    return unflatten(dataclasses.replace(params, values=values))


def _flattened(state: Any, function: Any) -> Any:
    """Applies `function` to the parameters and to the optimizer's trees of their structure."""
    structure: Any = jax.tree.structure(state.params)
    alike = lambda node: jax.tree.structure(node) == structure  # noqa: E731
    opt_state = jax.tree.map(
        lambda node: function(node) if alike(node) else node, state.opt_state, is_leaf=alike
    )
    return dataclasses.replace(state, params=function(state.params), opt_state=opt_state)


def _with_shardings(shapes: Any, where: Any) -> Any:
    return jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), shapes, where
    )


def _cut(shape: tuple[int, ...], mesh: Mesh) -> P:
    """Cuts the first dimension that divides evenly; if there is none, the array stays whole."""
    for dim, size in enumerate(shape):
        if size and size % mesh.shape[FSDP] == 0:
            return P(*[None] * dim, FSDP)
    return P()


# These convert one buffer at a time. So a device holds one whole buffer, as in a step, and never
# the whole state.


@functools.cache
def _to_cut_tree(form: Form) -> Any:
    cuts = jax.tree.unflatten(form.structure, [_cut(shape, form.mesh) for shape in form.shapes])

    def own_part(leaf, cut):
        if not cut:
            return leaf
        size = leaf.shape[len(cut) - 1] // form.mesh.shape[FSDP]
        return lax.dynamic_slice_in_dim(leaf, lax.axis_index(FSDP) * size, size, len(cut) - 1)

    # Written by hand, because the compiler would send the parts of each leaf in separate messages.
    def local(flat):
        return jax.tree.map(own_part, gathered(flat), cuts)

    return jax.jit(jax.shard_map(local, mesh=form.mesh, in_specs=P(FSDP), out_specs=cuts))


@functools.cache
def _to_buffer(mesh: Mesh) -> Any:
    where = NamedSharding(mesh, P(FSDP))
    return jax.jit(lambda tree: flatten(tree, mesh), out_shardings=where)
