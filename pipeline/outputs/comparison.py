"""Runs side by side: their figures, their pictures, and how their configs differ.

`compare` reads only what evaluations wrote (metrics.json and pictures), so it needs neither the
runs' data nor their devices. Functions passed as `across` add figures of several runs together.
`ranking` is one: how alike the runs' latents are (Duan et al. 2020, arXiv:1905.12614), with the
equations in `evals.scores.udr`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from pipeline import datasets, models
from pipeline.display import figures, pages, terminal
from pipeline.evals.scores import udr
from pipeline.outputs import saved_state
from pipeline.runtime import files, run_config
from pipeline.training import batching, posteriors, setup

BETTER = {"higher": max, "lower": min}  # by the direction in the table of figures
NUM_EXAMPLES = 1000  # encoded for a ranking, as in disentanglement_lib


class Run(NamedTuple):
    """One run's report."""

    workdir: Path
    folder: Path  # holds metrics.json
    found: Mapping[str, Any]  # contents of metrics.json
    config: Mapping[str, Any]  # flat


class Comparison(NamedTuple):
    """What is shown: each name has a list with one entry per run, in the order of the runs."""

    names: list[str]  # of the runs
    runs: list[Run]
    figures: dict[str, list[float | None]]
    differing: dict[str, list[Any]]  # of config fields; "–" for a run without the field
    pictures: dict[str, list[bytes | None]]

    def best(self, name: str) -> float | None:
        """Returns the best value; None if no direction is better or if all values are equal."""
        known = [value for value in self.figures[name] if value is not None]
        better = BETTER.get(figures.of(name).direction)
        return better(known) if better and len(set(known)) > 1 else None


def compare(
    runs: Sequence[Run],
    *,
    across: Sequence[Callable[[Sequence[Run]], Mapping[str, list[float | None]]]] = (),
) -> Comparison:
    """Puts runs side by side.

    Args:
        runs: two or more.
        across: functions of all runs that return figures by name, one value per run, such as
            `ranking`.
    """
    # A figure that a run lacks is None in its row.
    facts: dict[str, list[float | None]] = {
        "step": [run.found["step"] for run in runs],
        "examples": [run.found["examples"] for run in runs],
    }
    for name in _union(run.found["figures"] for run in runs):
        facts[name] = [run.found["figures"].get(name) for run in runs]
    for function in across:
        facts |= function(runs)
    # Only the fields whose values differ are shown.
    fields = {
        field: [run.config.get(field, "–") for run in runs]
        for field in sorted(_union(run.config for run in runs))
    }
    pictures = _union(run.found["files"] for run in runs)
    return Comparison(
        names=_short(runs),
        runs=list(runs),
        figures=facts,
        differing={
            field: values
            for field, values in fields.items()
            if any(value != values[0] for value in values)
        },
        pictures={name: [_picture(run, name) for run in runs] for name in pictures},
    )


def write(page: Path, found: Comparison, screen: terminal.Terminal) -> None:
    """Prints the tables, and writes them and the pictures to one page."""
    header = ["", *found.names]
    screen.columns(
        "Held-out figures",
        [header, *([name, *map(pages.number, row)] for name, row in found.figures.items())],
    )
    if found.differing:
        rows = ([field, *map(str, row)] for field, row in found.differing.items())
        screen.columns("Config fields that differ", [header, *rows])
    files.write(page, pages.render("compare.html", found=found))


def ranking(runs: Sequence[Run]) -> Mapping[str, list[float | None]]:
    """Returns `udr_lasso` and `udr_spearman` of every run, or {} if the runs are not comparable.

    All runs need a Gaussian posterior, and data of the same name and image shape.
    """
    configs = [run_config.load(run.workdir) for run in runs]
    examples = [datasets.example_spec(config) for config in configs]
    abstract = [
        models.abstract(config, example) for config, example in zip(configs, examples, strict=True)
    ]
    kinds = {
        (config.data.name, example["image"].shape)
        for config, example in zip(configs, examples, strict=True)
    }
    if len(kinds) > 1 or not all(hasattr(model, "posterior") for model in abstract):
        return {}
    source = datasets.load(configs[0]).heldout
    found = [_encoded(run, config, source) for run, config in zip(runs, configs, strict=True)]
    means, kls = [each.mean for each in found], [each.kl.mean(axis=0) for each in found]
    return {
        f"udr_{relation.__name__}": [float(s) for s in udr.scores(means, kls, relation=relation)]
        for relation in (udr.lasso, udr.spearman)
    }


def _union(mappings: Any) -> list[str]:
    """Returns every key once, in the order of first appearance."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _short(runs: Sequence[Run]) -> list[str]:
    """Returns the runs' folder names, or their paths if two names are equal."""
    names = [run.workdir.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.workdir) for run in runs]


def _picture(run: Run, name: str) -> bytes | None:
    path = run.folder / run.found["files"].get(name, "")
    return path.read_bytes() if path.is_file() else None


def _encoded(run: Run, config: Any, source: datasets.Source) -> posteriors.Encodings:
    """Restores the run's reported checkpoint and encodes NUM_EXAMPLES examples of the source."""
    ready = setup.prepare_evaluation(config, batch_size=64 * jax.device_count())
    _, state = saved_state.restore(run.workdir, str(run.found["step"]), ready)
    batches = batching.heldout_batches(source, ready.config, ready.mesh, num=NUM_EXAMPLES)
    encode = posteriors.encoder(ready.config, ready.mesh)
    return encode(state, (batch for _, batch in batches))
