"""Whether an example's values depend on that example alone, and sums on true examples alone."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from pipeline import models
from pipeline.testing import subjects
from pipeline.testing.model_error import COUPLED, HOST, PAGE, require, require_equal
from pipeline.testing.subjects import NUM, Subject
from pipeline.training import coupling, examples

TOLERANCE = 1e-5  # rounding may depend on the number of examples
STEP = jnp.int32(1)
HALF = NUM // 2
MASK = np.arange(NUM) < NUM - 3  # the last three examples are padding


class Values(NamedTuple):
    """What a model says of each example, pytrees of [B, ...]; None if it lacks the method."""

    terms: Any
    shown: Any
    posterior: Any
    reconstruct: Array | None
    sample: Array | None


def check(subject: Subject) -> list[str]:
    """Returns what was checked, or raises a ModelError."""
    values = _compiled(subject)
    given, keys = subjects.as_given(subject.batch), subjects.keys_of(subject)
    whole, sums, left = values(given, keys)
    again = _compiled(subject)(given, keys)
    text = "differs between two traces of `terms`"
    require_equal(again[:2], (whole, sums), text, tolerance=0, repair=HOST)
    _check_images(whole)
    # One row at a time, because a model may look only at its first or last row.
    for row in (0, HALF, NUM - 1):
        others = np.arange(NUM) != row
        _check_others(subject, values, whole, row, others)
    repair = f"return sums and define `updated_stats`, {PAGE}"
    require_equal(
        left,
        subject.first.stats,
        "changes in `terms`, and the step drops that",
        tolerance=0,
        repair=repair,
    )
    halves = [
        values(jax.tree.map(lambda x, part=part: x[part], given), keys[part])
        for part in (slice(None, HALF), slice(HALF, None))
    ]
    # The same rows in a smaller batch: what divides by the number of rows shows here.
    repair = f"return the value of each example; {COUPLED}"
    first = jax.tree.map(lambda x: x[:HALF], whole)
    _require_close(
        halves[0][0], first, "of an example differs in a batch of half the size", repair=repair
    )
    added = jax.tree.map(jnp.add, halves[0][1], halves[1][1])
    repair = f"return sums over the examples and no means, {PAGE}"
    text = "of `sums` is not the sum of both halves of the batch"
    _require_close(added, sums, text, repair=repair)
    _check_padding(subject, values)
    return [
        "an example's values depend on no other example, key or padding",
        "sums depend only on true examples, and add up",
    ]


def _compiled(subject: Subject) -> Callable:
    """Returns `_values` of the subject, traced anew and compiled."""
    values = jax.jit(lambda first, *given: _values(subject._replace(first=first), *given))
    return functools.partial(values, subject.first)


def _values(subject: Subject, batch: Any, keys: Array) -> tuple[Values, Any, Any]:
    """Returns the values of each example, the sums, and the statistics that `terms` leaves."""
    batch = examples.scaled(batch, subject.example)
    training = models.augmented(subject.model, batch, keys=keys)
    model = subject.model
    terms, sums, shown = coupling.terms(model, training, keys=keys, step=STEP)
    left = nnx.as_pure(nnx.state(model, nnx.Not(nnx.Param)))
    given = {"posterior": batch, "reconstruct": batch, "sample": keys}
    others = (
        getattr(subject.model, name)(one) if subject.has(name) else None
        for name, one in given.items()
    )
    return Values(terms, shown, *others), sums, left


def _check_others(subject: Subject, values: Any, whole: Any, row: int, others: Any) -> None:
    """Changes example `row`, then its key, and requires the others to stay as they are."""
    given, keys = subjects.as_given(subject.batch), subjects.keys_of(subject)
    changed = {
        name: array if name not in subject.other else _with_row(array, subject.other[name], row)
        for name, array in given.items()
    }
    changed["mask"] = given["mask"].at[row].set(0)
    before = jax.tree.map(lambda x: x[others], whole)
    after = jax.tree.map(lambda x: x[others], values(changed, keys)[0])
    text = "of an example changes with another example of its shard"
    _require_close(after, before, text, repair=COUPLED)
    further = jnp.where(jnp.arange(NUM) == row, subjects.keys_of(subject, seed=1), keys)
    after = jax.tree.map(lambda x: x[others], values(given, further)[0])
    repair = "draw for each example with its own key, `jax.vmap(draw)(keys)`"
    text = "of an example changes with another example's key"
    _require_close(after, before, text, repair=repair)


def _with_row(array: Any, other: Any, row: int) -> Any:
    return np.where((np.arange(NUM) == row).reshape(-1, *[1] * (array.ndim - 1)), other, array)


def _check_padding(subject: Subject, values: Any) -> None:
    """Puts different examples into the padding, and requires the same sums and coupled terms."""
    keys, found = subjects.keys_of(subject), []
    for padding in (subject.batch, subject.other):
        batch = {
            name: np.where(MASK.reshape(-1, *[1] * (array.ndim - 1)), array, padding[name])
            for name, array in subject.batch.items()
        }
        whole, sums, _ = values(subjects.as_given(batch, mask=MASK), keys)
        found.append((sums, _coupled(subject, whole.shown, MASK)))
    repair = f"multiply by `mask`, {PAGE}"
    _require_close(found[1][0], found[0][0], "of `sums` changes with padding", repair=repair)
    text = "of `coupled` changes with padding"
    _require_close(found[1][1], found[0][1], text, repair=repair)
    # Padding must not be counted, either: that would differ only from a batch without it.
    true = int(MASK.sum())
    rows = {name: array[:true] for name, array in subject.batch.items()}
    whole, sums, _ = values(subjects.as_given(rows), keys[:true])
    _require_close(sums, found[0][0], "of `sums` counts padding", repair=repair)
    alone = _coupled(subject, whole.shown, np.ones(true))
    _require_close(found[0][1], alone, "of `coupled` counts padding", repair=repair)


def _coupled(subject: Subject, shown: Any, mask: Any) -> Any:
    """Returns the coupled terms of true examples, which come first, or None."""
    if shown is None:
        return None

    def function(first, shown, mask):
        return subject._replace(first=first).model.coupled(shown, mask=mask, step=STEP)

    found = jax.jit(function)(subject.first, shown, jnp.float32(mask))
    return jax.tree.map(lambda x: x[: int(np.sum(mask))], found)


def _check_images(values: Values) -> None:
    for name in ("reconstruct", "sample"):
        if (images := getattr(values, name)) is not None:
            low, high = float(images.min()), float(images.max())
            require(
                0 <= low <= high <= 1,
                f"`{name}` returns values of {low:.3g} … {high:.3g}: return images in [0, 1]",
            )


def _require_close(found: Any, expected: Any, text: str, *, repair: str) -> None:
    require_equal(found, expected, text, tolerance=TOLERANCE, repair=repair)
