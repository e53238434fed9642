"""A tree of arrays as one flat float32 buffer, which can be cut into equal pieces.

The tree's form is static and travels with the values, so any code that holds a buffer can restore
the tree. To optax's transformations a buffer is a tree with one leaf.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh

from pipeline.mesh.sharding import FSDP
from pipeline.runtime import errors

# Pieces are whole tiles of a TPU, 8 × 128. Otherwise its compiler gathers by an all-reduce of a
# buffer that every chip fills up with zeros.
TILE = 1024


class Form(NamedTuple):
    """Describes the values of a flat buffer."""

    structure: Any  # of the tree
    shapes: tuple[tuple[int, ...], ...]  # of the tree's leaves
    mesh: Mesh  # over which the buffer is cut

    @property
    def order(self) -> list[int]:
        """The leaves' order in the buffer: matrices first, so that one number separates them."""
        return sorted(range(len(self.shapes)), key=lambda index: len(self.shapes[index]) <= 1)

    @property
    def ends(self) -> list[int]:
        """Where each leaf of this order ends in the buffer."""
        return list(itertools.accumulate(math.prod(self.shapes[index]) for index in self.order))

    @property
    def num_in_matrices(self) -> int:
        """Number of values in leaves of more than one dimension, which come first."""
        return sum(math.prod(shape) for shape in self.shapes if len(shape) > 1)

    @property
    def padding(self) -> int:
        """Number of zeros at the end, which make all pieces equally long."""
        return -sum(map(math.prod, self.shapes)) % (TILE * self.mesh.shape[FSDP])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Flat:
    """A tree of float32 arrays as one buffer; see `Form`."""

    values: Array  # [P + padding] float32; inside `shard_map` only the device's piece
    form: Form = dataclasses.field(metadata={"static": True})


def flatten(tree: Any, mesh: Mesh) -> Flat:
    """Returns the whole tree as one whole buffer.

    Raises:
        InputError: an array is not float32, so the buffer would change its values.
    """
    leaves, structure = jax.tree.flatten(tree)
    for leaf in leaves:
        if leaf.dtype != jnp.float32:
            raise errors.InputError(
                f"config.mesh.fsdp={mesh.shape[FSDP]} cuts float32 parameters, and the model has "
                f"some of {leaf.dtype}: set mesh.fsdp=1"
            )
    form = Form(structure, tuple(leaf.shape for leaf in leaves), mesh)
    parts = [leaves[index].ravel() for index in form.order]
    return Flat(jnp.concatenate([*parts, jnp.zeros(form.padding, jnp.float32)]), form)


def unflatten(flat: Flat) -> Any:
    """Returns the tree of a whole buffer."""
    form = flat.form
    leaves: list[Any] = [None] * len(form.shapes)
    for index, end in zip(form.order, form.ends, strict=True):
        shape = form.shapes[index]
        leaves[index] = flat.values[end - math.prod(shape) : end].reshape(shape)
    return jax.tree.unflatten(form.structure, leaves)


def own_piece(tree: Any, mesh: Mesh) -> Flat:
    """Returns this device's piece of the tree; call this inside `shard_map`."""
    flat = flatten(tree, mesh)
    size = len(flat.values) // mesh.shape[FSDP]
    piece = lax.dynamic_slice_in_dim(flat.values, lax.axis_index(FSDP) * size, size)
    return dataclasses.replace(flat, values=piece)


def in_matrices(piece: Flat) -> Array:
    """Returns which values of this device's piece lie in matrices, [values] bool."""
    size = len(piece.values)
    return lax.axis_index(FSDP) * size + jnp.arange(size) < piece.form.num_in_matrices


def of_leaves(piece: Flat, numbers: Callable[[Any], Any]) -> Array:
    """Returns the number of each value's leaf, for this device's piece, [values] float32.

    Args:
        piece: of a buffer; padding gets the number of the last leaf.
        numbers: maps a tree of the buffer's form to one with a number for each leaf.
    """
    form, size = piece.form, len(piece.values)
    found = jax.tree.leaves(numbers(jax.tree.unflatten(form.structure, range(len(form.shapes)))))
    in_order = jnp.array([found[index] for index in form.order], jnp.float32)
    position = lax.axis_index(FSDP) * size + jnp.arange(size)
    leaf = jnp.searchsorted(jnp.array(form.ends), position, side="right")
    return in_order[jnp.minimum(leaf, len(found) - 1)]
