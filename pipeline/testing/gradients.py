"""Whether the gradient of the whole batch is finite and reaches every parameter."""

import functools
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pipeline import models
from pipeline.runtime import errors
from pipeline.testing import runs, subjects
from pipeline.testing.model_error import PAGE, require
from pipeline.testing.subjects import NUM, Subject
from pipeline.training import coupling, examples

DRAWS = 16


def check(subject: Subject, straight: runs.Trained, *, untrained: Collection[str]) -> list[str]:
    """Returns what was checked, or raises a ModelError.

    The gradient is that after the run `straight`: where a layer starts at 0, none passes at first.
    """
    state, metrics = straight
    for name in (*runs.FIGURES, *metrics[-1]):
        value = metrics[-1][name]
        require(
            bool(np.isfinite(value).all()),
            f"{name} is {_shown(value)} after {subject.steps} steps on random examples: find what "
            "overflows or divides by 0",
        )
    of = jax.jit(functools.partial(_gradients, subject))
    # Several draws, because in one of them nothing may be dropped that is dropped at random.
    draws = [
        of(state.params, state.stats, subjects.keys_of(subject, seed)) for seed in range(DRAWS)
    ]
    gradient, own = jax.tree.map(lambda *each: np.stack(each), *jax.device_get(draws))
    found = {_name(path): leaf for path, leaf in jax.tree.leaves_with_path(gradient)}
    if unknown := sorted(set(untrained) - set(found)):
        raise errors.InputError(
            f"untrained names {unknown[0]!r}, which is no parameter: choose from {', '.join(found)}"
        )
    for (name, leaf), direct in zip(found.items(), jax.tree.leaves(own), strict=True):
        require(bool(np.isfinite(leaf).all()), f"the gradient of {name} is not finite")
        require(
            not bool(np.any(direct)),
            f"`objective` reads {name}, and the step drops that gradient: return what depends on "
            f"parameters as a term of each example, {PAGE}",
        )
        require(
            name in untrained or bool(np.any(leaf)),
            f"no gradient reaches {name}: use it, remove it, or name it in `untrained`",
        )
    return ["losses and gradients are finite, and a gradient reaches every parameter"]


def _gradients(subject: Subject, params: Any, stats: Any, keys: Array) -> tuple[Any, Any]:
    """Returns the objective's gradients through the means, and by parameters that it reads."""
    batch = examples.scaled(subjects.as_given(subject.batch), subject.example)
    step = jnp.int32(subject.steps)

    def means(params):
        model = subject.merge(params, stats)
        training = models.augmented(model, batch, keys=keys)
        terms, _, shown = coupling.terms(model, training, keys=keys, step=step)
        coupled = None
        if shown is not None:
            coupled = subject.merge(params, stats).coupled(shown, mask=jnp.ones(NUM), step=step)
        own = jax.tree.map(lambda term: term.mean(axis=0), (terms, coupled))
        return coupling.joined(*own)

    def objective(params, means):
        return subject.merge(params, stats).objective(means, step=step)

    fixed = means(params)
    through = jax.grad(lambda of: objective(params, means(of)))(params)
    return through, jax.grad(objective)(params, fixed)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _shown(value: Any) -> str:
    array = np.asarray(value)
    return f"{array:.3g}" if not array.ndim else "not finite"
