"""Evaluations: one file each; the entries of `config.evals` are the files' names.

An entry with a dot is a module from outside this package, `my_package.my_evaluation`.

Each has `make(config, mesh, source) → evaluate`, and `evaluate(state)` yields (tag, value) pairs,
in the training loop and in `pipeline.evaluate` alike. `source` is the held-out data; `make` raises
an `errors.InputError` where the model or the data set has not what it needs. Tags are
`heldout/<name>`, and `pipeline.display.figures` says what each name means. A value is a float, an
array [N] (a histogram), [H, W, C] (a picture) or [T, H, W, C] uint8 (an animation), a text in
Markdown, or a function without arguments that draws one of these.

All processes evaluate together, and yield the same tags in the same order. Whatever needs several
of them, as the model does, is computed before the value is yielded; drawing is left to a function,
which process 0 alone calls, so that no other imports matplotlib or waits for pixels of no use.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline import datasets
from pipeline.display import terminal
from pipeline.runtime import errors, registry

REPORT_SECONDS = 2.0  # between two signs of life


class Value(NamedTuple):
    """What an evaluation yields; see above."""

    evaluation: str  # its name, as `config.evals` has it
    name: str  # what follows "heldout/" in the tag
    content: Any


class Chosen(NamedTuple):
    """Evaluations by their names, and why others are left out."""

    evaluations: dict[str, Callable[[Any], Iterator]]
    left_out: dict[str, str]
    source: "Watched"


class Watched:
    """Held-out data that tells how many examples of it were read."""

    def __init__(self, source: datasets.Source):
        """Wraps `source`; `heard` is called with the number of examples at each reading."""
        self._source = source
        self.heard: Callable[[int], None] = lambda number: None

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._source)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Reads through to the source."""
        self.heard(len(indices))
        return self._source.read(indices)


def names(asked: str) -> tuple[str, ...]:
    """Returns the evaluations that `--evals` names; none for "all". Imports none of them.

    Raises:
        InputError: an unknown one; the message lists those that exist.
    """
    if asked == "all":
        return ()
    known = registry.names("evals")
    chosen = tuple(dict.fromkeys(name.strip() for name in asked.split(",")))
    for name in chosen:
        if name not in known and "." not in name:
            raise errors.InputError(
                f"--evals={asked}: {name!r} is unknown: choose all or some of {', '.join(known)}"
            )
    return chosen


def covered(asked: str, found: Mapping[str, Any]) -> bool:
    """Says whether what metrics.json holds has all that `--evals` asks for."""
    wanted = names(asked) or registry.names("evals")
    return set(wanted) <= {*found["evaluations"], *found["left_out"]}


def choose(asked: str, config: Any, mesh: Mesh, source: datasets.Source) -> Chosen:
    """Makes the evaluations that `--evals` names, or for "all" those that apply.

    These are the run's own, and then every other file here that takes its model and its data.

    Raises:
        InputError: one that was named is unknown, or does not apply.
    """
    watched, left_out = Watched(source), {}
    wanted = names(asked)
    made = {}
    for name in wanted or dict.fromkeys((*config.evals, *registry.names("evals"))):
        given = f"--evals={asked}" if wanted else f"config.evals={tuple(config.evals)}"
        module = registry.load("evals", name, field="evals", given=given)
        try:
            made[name] = module.make(config, mesh, watched)
        except errors.InputError as error:
            if wanted:
                raise
            left_out[name] = str(error)
    return Chosen(made, left_out, watched)


def run(chosen: Chosen, state: Any, *, examples: int, screen: terminal.Terminal) -> list[Value]:
    """Runs all of them on all processes, and returns what they yield; pictures on process 0 alone.

    Args:
        chosen: what `choose` made.
        state: as restored.
        examples: how many one evaluation reads, for the display.
        screen: shows which one is under way, and how far.
    """
    values, first_process = [], jax.process_index() == 0
    for number, (name, evaluate) in enumerate(chosen.evaluations.items(), start=1):
        began = time.perf_counter()
        with _progress(chosen.source, f"{name}: example", examples, screen):
            for tag, content in evaluate(state):
                if callable(content):  # what is drawn is of no use elsewhere
                    content = content() if first_process else None
                values.append(Value(name, tag.removeprefix("heldout/"), content))
        seconds = time.perf_counter() - began
        screen.note(f"{number}/{len(chosen.evaluations)} {name}: {seconds:.1f} s")
    return values


def scalars(values: list[Value]) -> dict[str, float]:
    """Returns the figures that are one number."""
    return {value.name: value.content for value in values if isinstance(value.content, float)}


def warnings(config: Any, chosen: Chosen, figures: dict[str, float]) -> list[str]:
    """Returns what the model's and the evaluations' authors would have one look at."""
    modules = [registry.load("models", config.model.name, field="model.name")]
    modules += [registry.load("evals", name, field="evals") for name in chosen.evaluations]
    return [text for one in modules if hasattr(one, "warnings") for text in one.warnings(figures)]


@contextmanager
def _progress(
    source: Watched, noun: str, examples: int, screen: terminal.Terminal
) -> Iterator[None]:
    done, reported, processes = 0, time.perf_counter(), jax.process_count()
    with screen.progress(examples, noun=noun) as progress:

        def heard(number: int) -> None:
            nonlocal done, reported
            done = min(done + number * processes, examples)
            if (now := time.perf_counter()) - reported > REPORT_SECONDS:
                progress.update(done, metrics={})
                reported = now

        source.heard = heard
        try:
            yield
        finally:
            source.heard = lambda number: None


def check_model(config: Any, method: str, *, what: str, evaluation: str) -> None:
    """Raises an InputError where the run's model lacks the `method` that an evaluation needs.

    Args:
        config: the run's.
        method: of `Model`.
        what: the model then has none of, for the error.
        evaluation: of that name.
    """
    name = config.model.name
    if not hasattr(_model(name), method):
        fitting = [each for each in registry.names("models") if hasattr(_model(each), method)]
        raise errors.InputError(
            f"config.evals has {evaluation!r}, but config.model.name={name!r} has no {what}: take "
            f"it out, or choose one of {', '.join(fitting)}"
        )


def _model(name: str) -> Any:
    return registry.load("models", name, field="model.name").Model
