"""Evaluations: one file each; the entries of `config.evals` are the files' names.

An entry with a dot is a module from outside this package, `my_package.my_evaluation`.

Each file defines `make(config, mesh, source) → evaluate`. `source` is the held-out data. `make`
raises an `errors.InputError` if the model or the data set lacks what the evaluation needs. Both the
training loop and `pipeline.evaluate` call `evaluate(state)`, which yields (tag, value) pairs. Tags
are `heldout/<name>`, and `pipeline.display.figures` says what each name means. A value is a float,
a text in Markdown, or an array. An array is [N] (a histogram), [H, W, C] (a picture) or
[T, H, W, C] uint8 (an animation). A function without arguments that draws one of these is also a
value.

All processes evaluate together and yield the same tags in the same order. An evaluation computes
everything that needs several processes, such as the model, before it yields the value. It leaves
drawing to a function that only process 0 calls. So no other process imports matplotlib or waits for
pixels that it does not use. Such a function that fails is named in a warning, and ends no run.

A file that takes minutes sets `SLOW` to a text about it. It runs only if it is asked for. A file
whose figures may take longer in a report than in training has `for_report(config) → config`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from pipeline import datasets
from pipeline.display import pictures, terminal
from pipeline.runtime import errors, registry, throttle
from pipeline.training.watched import Watched

REPORT_SECONDS, LOG_SECONDS = 0.5, 10.0  # between two reports of progress, on a bar or in a log


class Value(NamedTuple):
    """A value that an evaluation yields."""

    evaluation: str  # its entry in `config.evals`
    name: str  # the tag without "heldout/"
    content: Any


class Chosen(NamedTuple):
    """Evaluations by name, and the reasons why others are left out."""

    evaluations: dict[str, Callable[[Any], Iterator]]
    left_out: dict[str, str]  # those that do not apply to the model and its data
    source: Watched
    slow: tuple[str, ...] = ()  # texts about those that apply and would take minutes


def names(asked: str) -> tuple[str, ...]:
    """Returns the evaluations that `--evals` names, or () for "quick" and "all".

    Raises:
        InputError: an unknown evaluation; the message lists those that exist.
    """
    if asked in ("quick", "all"):
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
    """Says whether `found`, the contents of metrics.json, has all that `--evals` asks for."""
    wanted = set(names(asked) or registry.names("evals"))
    if asked == "quick":
        wanted = {name for name in wanted if not _slow(name)}
    return wanted <= {*found["evaluations"], *found["left_out"]}


def choose(asked: str, config: Any, mesh: Mesh, source: datasets.Source) -> Chosen:
    """Makes the evaluations that `--evals` names.

    "all" means all that apply: the run's own evaluations, followed by all others here that its
    model and data allow. "quick" means these without slow ones, unless the run's config names them.

    Raises:
        InputError: an evaluation that was named is unknown or does not apply.
    """
    watched, made, left_out, slow = Watched(source), {}, {}, []
    wanted = names(asked)
    for name in wanted or dict.fromkeys((*config.evals, *registry.names("evals"))):
        given = f"--evals={asked}" if wanted else f"config.evals={tuple(config.evals)}"
        module = registry.load("evals", name, field="evals", given=given)
        try:
            own = getattr(module, "for_report", lambda config: config)(config)
            evaluate = module.make(own, mesh, watched)
        except errors.InputError as error:
            if wanted:
                raise
            left_out[name] = str(error)
            continue
        if asked != "quick" or name in config.evals or not _slow(name):
            made[name] = evaluate
        else:
            slow.append(f"{name} takes {_slow(name)} and is not run: --evals=all runs it too")
    return Chosen(made, left_out, watched, tuple(slow))


def run(chosen: Chosen, state: Any, *, examples: int, screen: terminal.Terminal) -> list[Value]:
    """Runs the evaluations on all processes and returns their values.

    Only process 0 draws: on others the content of a value that is a function is None. What cannot
    be drawn is missing.

    Args:
        chosen: result of `choose`.
        state: as restored.
        examples: number that one evaluation reads, for the display.
        screen: shows which evaluation runs, and its progress.
    """
    values, first_process = [], jax.process_index() == 0
    for number, (name, evaluate) in enumerate(chosen.evaluations.items(), start=1):
        began = time.perf_counter()
        with _progress(chosen.source, f"{name}: example", examples, screen):
            for tag, content in evaluate(state):
                if callable(content):  # only process 0 uses what is drawn
                    if first_process:
                        content = pictures.attempted(content, tag, screen.warn)
                        if content is None:
                            continue
                    else:
                        content = None
                values.append(Value(name, tag.removeprefix("heldout/"), content))
        seconds = time.perf_counter() - began
        screen.note(f"{number}/{len(chosen.evaluations)} {name}: {seconds:.1f} s")
    return values


def scalars(values: list[Value]) -> dict[str, float]:
    """Returns the values that are a single number, by name."""
    return {value.name: value.content for value in values if isinstance(value.content, float)}


def warnings(config: Any, chosen: Chosen, figures: dict[str, float]) -> list[str]:
    """Returns the warnings of the model and of the evaluations about the held-out figures."""
    modules = [registry.load("models", config.model.name, field="model.name")]
    modules += [registry.load("evals", name, field="evals") for name in chosen.evaluations]
    return [text for one in modules if hasattr(one, "warnings") for text in one.warnings(figures)]


@contextmanager
def _progress(
    source: Watched, noun: str, examples: int, screen: terminal.Terminal
) -> Iterator[None]:
    done, processes = 0, jax.process_count()
    report = throttle.Throttle(REPORT_SECONDS if screen.live else LOG_SECONDS)
    with screen.progress(examples, noun=noun, transient=True) as progress:

        def heard(number: int) -> None:
            nonlocal done
            done = min(done + number * processes, examples)
            if report.due():
                progress.update(done, metrics={})

        source.heard = heard
        try:
            yield
        finally:
            source.heard = lambda number: None


def check_model(config: Any, method: str, *, what: str, evaluation: str) -> None:
    """Raises an InputError if the run's model lacks the `method` that an evaluation needs.

    Args:
        config: the run's.
        method: of `Model`.
        what: names what a model without the method lacks, for the error.
        evaluation: name of the evaluation, for the error.
    """
    name = config.model.name
    if not hasattr(_model(name), method):
        fitting = [each for each in registry.names("models") if hasattr(_model(each), method)]
        raise errors.InputError(
            f"config.evals has {evaluation!r}, but config.model.name={name!r} has no {what}: take "
            f"it out, or choose one of {', '.join(fitting)}"
        )


def _slow(name: str) -> str:
    """Returns how long an evaluation takes, or "" if it takes seconds."""
    return getattr(registry.load("evals", name, field="evals"), "SLOW", "")


def _model(name: str) -> Any:
    return registry.load("models", name, field="model.name").Model
