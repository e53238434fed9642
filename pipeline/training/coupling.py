"""Terms that couple the examples of a batch: functions of what every example shows the others.

Every device has the rows that all examples show, and computes the coupled terms of the whole batch.
So their gradient by each row is known everywhere, and only the rows themselves have to travel.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from pipeline.mesh import dependence, gathering, ordered_sums
from pipeline.training import examples


class Whole(NamedTuple):
    """What is known of the global batch on every device."""

    shown: Any  # what all N examples show, a pytree of [N, ...]
    mask: Array  # [N], 0 if the example is padding


def make(mesh: Any, *, parts: int, shards: int) -> tuple[Callable, Callable]:
    """Returns what a program on a mesh needs for coupled terms; arguments as in `reductions.make`.

    Returns:
        (show, examples) → `Whole`, where `show` maps a part of a device's examples to what they
        show. And (function, whole) → `function(whole)`, which every device computes; with shards it
        has the same bits on every mesh.
    """
    gather = gathering.make(mesh, parts=parts, shards=shards)

    def gathered(show: Callable, examples: Any) -> Whole:
        return gather(lambda part: Whole(show(part), part[0]["mask"]), examples)

    return gathered, ordered_sums.alone if shards else lambda function, whole: function(whole)


def terms(model: Any, batch: dict[str, Array], *, keys: Array, step: Array) -> tuple[Any, Any, Any]:
    """Returns terms and sums as `Model.terms` does, and what the examples show, or None."""
    if not hasattr(model, "shown"):
        return *model.terms(batch, keys=keys, step=step), None
    shown = model.shown(batch, keys=keys, step=step)
    return *model.terms(batch, keys=keys, step=step, shown=shown), shown


def joined(own: Any, coupled: Any) -> Any:
    """Returns the means that a model takes: a pair, if it has coupled terms."""
    return own if coupled is None else (own, coupled)


def summed(model: Any, whole: Whole, *, step: Array) -> Any:
    """Returns the coupled terms' sums over the true examples of the whole batch, float32."""
    values = model.coupled(whole.shown, mask=whole.mask, step=step)
    # Padding may have any value, and 0 · NaN would be NaN.
    true = lambda t: jnp.where(whole.mask.reshape(-1, *[1] * (t.ndim - 1)) > 0, t, 0)  # noqa: E731
    return examples.summed(jax.tree.map(true, values), whole.mask)


def slopes(function: Callable, params: Any, whole: Whole, weights: Any) -> tuple[Any, Any]:
    """Returns the gradients of weights · function(params, whole) by parameters and by `shown`.

    The first is None if the function depends on the parameters only through what is shown. Call
    this with values that are equal on all devices.
    """
    of_shown = lambda params, shown: function(params, whole._replace(shown=shown))  # noqa: E731
    if any(dependence.inputs_read(lambda params: function(params, whole), params)):
        return jax.vjp(of_shown, params, whole.shown)[1](weights)
    pullback = jax.vjp(lambda shown: of_shown(params, shown), whole.shown)[1]
    return None, *pullback(weights)


def rows_at(whole: Any, position: Array) -> Any:
    """Returns the rows of [N, ...] at consecutive positions [B]."""
    first, num = position[0], len(position)
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, first, num), whole)


def added_once(gradients: Any, direct: Any, position: Array) -> Any:
    """Returns gradients of a shard with `direct` added to those of the batch's first shard.

    Args:
        gradients: of this shard; they are summed over all shards afterwards.
        direct: gradients of the whole batch, equal on all devices, or None.
        position: [B], of the shard's examples in the global batch.
    """
    if direct is None:
        return gradients
    first = jnp.any(position == 0)
    return jax.tree.map(lambda g, d: g + jnp.where(first, d, 0), gradients, direct)
