"""The shapes and dtypes of all that a model returns, read off its traced methods; nothing runs."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from pipeline import datasets, models
from pipeline.testing import subjects
from pipeline.testing.model_error import COUPLED, PAGE, ModelError, require
from pipeline.testing.subjects import NUM, Subject
from pipeline.training import coupling, examples

NEEDED = ("terms", "objective", "metrics")
OPTIONAL = ("reconstruct", "sample")
STEP = jax.ShapeDtypeStruct((), jnp.int32)


def check(subject: Subject) -> list[str]:
    """Returns what was checked, or raises a ModelError."""
    for name in NEEDED:
        require(subject.has(name), f"the model has no `{name}`: define it, {PAGE}")
    whole, half = _returned(subject, NUM), _returned(subject, NUM // 2)
    for kind in ("terms", "shown", "coupled"):
        _check_rows(kind, whole[kind], half[kind])
    pairs = zip(_named("sums", whole["sums"]), jax.tree.leaves(half["sums"]), strict=True)
    for (name, leaf), smaller in pairs:
        require(
            leaf.shape == smaller.shape and jnp.issubdtype(leaf.dtype, jnp.floating),
            f"{name} is {_text(leaf)} for {NUM} examples and {_text(smaller)} for {NUM // 2}: "
            "return floats, summed over the examples",
        )
    _check_results(whole)
    _check_images(subject)
    return ["shapes and dtypes of terms, sums, objective, metrics and images"]


def absent(subject: Subject) -> list[str]:
    """Returns which methods were not checked because the model lacks them."""
    return [f"`{name}`: the model has none" for name in OPTIONAL if not subject.has(name)]


def _returned(subject: Subject, rows: int) -> dict[str, Any]:
    """Returns the shapes of what the model returns for that many examples."""

    def returned(params: Any, stats: Any, batch: Any, keys: Array, step: Array) -> dict[str, Any]:
        model, batch = subject.merge(params, stats), examples.scaled(batch, subject.example)
        batch = models.augmented(model, batch, keys=keys)
        terms, sums, shown = coupling.terms(model, batch, keys=keys, step=step)
        coupled = None
        if shown is not None:
            coupled = model.coupled(shown, mask=batch["mask"], step=step)
        own = jax.tree.map(lambda term: jnp.zeros(term.shape[1:]), (terms, coupled))
        means = coupling.joined(*own)
        own_stats = models.updated_stats(subject.merge(params, stats), stats, sums)
        return {
            "terms": terms,
            "sums": sums,
            "shown": shown,
            "coupled": coupled,
            "objective": subject.merge(params, stats).objective(means, step=step),
            "metrics": subject.merge(params, stats).metrics(means, sums, step=step),
            "stats": (stats, own_stats),
        }

    given = subjects.as_given(jax.tree.map(lambda x: x[:rows], subject.batch))
    arguments = (
        subject.first.params,
        subject.first.stats,
        given,
        subjects.keys_of(subject)[:rows],
        STEP,
    )
    try:
        return jax.eval_shape(returned, *arguments)
    except NameError as error:
        if "axis name" not in str(error):
            raise
        raise ModelError(
            f"the model uses axes of the mesh ({error}), which it must not know: {COUPLED}"
        ) from error


def _check_rows(kind: str, whole: Any, half: Any) -> None:
    if whole is None:
        return
    require(
        bool(jax.tree.leaves(whole)), f"`{kind}` returns no arrays: return a NamedTuple of them"
    )
    for (name, leaf), smaller in zip(_named(kind, whole), jax.tree.leaves(half), strict=True):
        fits = leaf.shape == (NUM, *smaller.shape[1:]) and smaller.shape[:1] == (NUM // 2,)
        require(
            fits and jnp.issubdtype(leaf.dtype, jnp.floating),
            f"{name} is {_text(leaf)} for {NUM} examples: return floats [{NUM}, …], a row for each "
            "example and no mean over them",
        )


def _check_results(whole: dict[str, Any]) -> None:
    objective, metrics = whole["objective"], whole["metrics"]
    require(
        getattr(objective, "shape", None) == () and jnp.issubdtype(objective.dtype, jnp.floating),
        f"`objective` returns {_text(objective)}: return one float []",
    )
    require(isinstance(metrics, dict), f"`metrics` returns a {type(metrics).__name__}, no dict")
    for name, leaf in metrics.items():
        fits = hasattr(leaf, "shape") and len(leaf.shape) < 2
        require(
            fits and jnp.issubdtype(leaf.dtype, jnp.floating),
            f"metrics[{name!r}] is {_text(leaf)}: return a float [] or floats [n]",
        )
    old, new = (jax.tree.map(_text, tree) for tree in whole["stats"])
    require(
        old == new, f"`updated_stats` returns {new}, and the stats are {old}: keep their structure"
    )


def _check_images(subject: Subject) -> None:
    shape = (NUM, *datasets.shown_pixels(subject.example).shape)
    for name in filter(subject.has, OPTIONAL):
        arguments: Any = subjects.keys_of(subject)
        if name == "reconstruct":
            arguments = examples.scaled(subjects.as_given(subject.batch), subject.example)
        leaf = jax.eval_shape(lambda given, of=name: getattr(subject.model, of)(given), arguments)
        require(
            getattr(leaf, "shape", None) == shape and jnp.issubdtype(leaf.dtype, jnp.floating),
            f"`{name}` returns {_text(leaf)} for {NUM} examples: return floats {list(shape)}",
        )


def _named(kind: str, tree: Any) -> list[tuple[str, Any]]:
    found = jax.tree.leaves_with_path(tree)
    return [
        (f"{kind}.{jax.tree_util.keystr(path, simple=True, separator='.')}", leaf)
        for path, leaf in found
    ]


def _text(leaf: Any) -> str:
    if not hasattr(leaf, "dtype"):
        return f"a {type(leaf).__name__}"
    return f"{leaf.dtype}{list(leaf.shape)}"
