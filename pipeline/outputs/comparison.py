"""Runs side by side: their figures, curves and pictures, and how their configs differ.

`compare` and `write` read only what the runs and their evaluations wrote (event files, metrics.json
and pictures), so they need neither the runs' data nor their devices. Functions passed as `across`
add figures of several runs together. `ranking` is one: how alike the runs' latents are (Duan et al.
2020, arXiv:1905.12614), with the equations in `evals.scores.udr`.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from pipeline import datasets, models
from pipeline.display import event_files, figures, pages, plots, terminal, texts
from pipeline.evals.scores import udr
from pipeline.outputs import comparability, saved_reports, saved_state
from pipeline.outputs.comparability import Run
from pipeline.runtime import files, run_config
from pipeline.training import batching, posteriors, setup

ARROWS = {"higher": "↑", "lower": "↓"}
BETTER = {"higher": max, "lower": min}  # by the direction of a figure
PARTS = {"heldout": "held-out", "train": "training"}
CURVES = ("elbo", "loss")  # whose curves are overlaid
NUM_EXAMPLES = 1000  # encoded for a ranking, as in disentanglement_lib


class Comparison(NamedTuple):
    """What is shown: each name has a list with one entry per run, in the order of the runs."""

    names: list[str]  # of the runs
    runs: list[Run]
    figures: dict[str, list[float | None]]
    differing: dict[str, list[Any]]  # of config fields; "–" for a run without the field
    pictures: dict[str, list[bytes | None]]
    caution: str = ""  # a sentence if the runs are on different data

    def arrow(self, name: str) -> str:
        """Returns "↑" or "↓" if higher or lower values of the figure rank these runs, else ""."""
        return ARROWS.get(comparability.direction(name, self.runs), "")

    def best(self, name: str) -> float | None:
        """Returns the best value; None if no direction is better or if all values are equal."""
        known = [value for value in self.figures[name] if value is not None]
        better = BETTER.get(comparability.direction(name, self.runs))
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
    for name in texts.ordered(_union(run.found["figures"] for run in runs)):
        facts[name] = [run.found["figures"].get(name) for run in runs]
    for function in across:
        facts |= function(runs)
    # Only the fields whose values differ are shown.
    fields = {
        field: [run.config.get(field, "–") for run in runs]
        for field in sorted(_union(run.config for run in runs))
    }
    pictures = _union(run.found["files"] for run in runs)
    names = _short(runs)
    return Comparison(
        names=names,
        runs=list(runs),
        figures=facts,
        differing={
            field: values
            for field, values in fields.items()
            if any(value != values[0] for value in values)
        },
        pictures={name: [_picture(run, name) for run in runs] for name in pictures},
        caution=comparability.caution(runs, names),
    )


def curves(runs: Sequence[Run], names: Sequence[str]) -> Iterator[str]:
    """Yields SVG charts of the runs' curves over each other: held-out ones if there are some."""
    points = [event_files.read_scalars(run.workdir / "tensorboard") for run in runs]
    kinds = [str(run.config.get("model.name")) for run in runs]
    for figure, part in itertools.product(map(figures.of, CURVES), PARTS):
        tag = f"{part}/{figure.name}"
        # Losses of different variants have nothing in common, so each variant has its own chart.
        groups = dict.fromkeys(kinds) if figure.name == "loss" else (None,)
        for kind in groups:
            shown = {
                name: (plots.colour(place), each[tag])
                for place, (name, each) in enumerate(zip(names, points, strict=True))
                if tag in each and kind in (None, kinds[place])
            }
            series = {name: each for name, (_, each) in shown.items()}
            if series and max(map(len, series.values())) > 1:
                of = f" of {kind}" if len(groups) > 1 else ""
                title = f"{pages.words(figure.name)}{of}, {PARTS[part]}"
                colours = [colour for colour, _ in shown.values()]
                yield plots.lines(series, title=title, unit=figure.unit, colours=colours)


def write(page: Path, found: Comparison, screen: terminal.Terminal) -> None:
    """Prints the tables, and writes them and the pictures to one page."""
    header = ["", *map(texts.visible, found.names)]
    rows = (
        [name, *(_marked(value, found.best(name)) for value in row)]
        for name, row in found.figures.items()
    )
    screen.columns("Held-out figures (* the best of its row)", [header, *rows])
    if found.caution:
        screen.warn(found.caution)
    if found.differing:
        rows = (
            [field, *(" ".join(texts.visible(str(value)).split()) for value in row)]
            for field, row in found.differing.items()
        )
        screen.columns("Config fields that differ", [header, *rows])
    drawn = list(curves(found.runs, found.names))
    files.write(page, pages.render("compare.html", found=found, curves=drawn))


def ranking(runs: Sequence[Run]) -> Mapping[str, list[float | None]]:
    """Returns `udr_lasso` and `udr_spearman` of every run, or {} if the runs are not comparable.

    All runs need a Gaussian posterior, and the same data.
    """
    configs = [run_config.load(run.workdir) for run in runs]
    examples = [datasets.example_spec(config) for config in configs]
    abstract = [
        models.abstract(config, example) for config, example in zip(configs, examples, strict=True)
    ]
    kinds = {
        (config.data.name, datasets.shown_pixels(example))
        for config, example in zip(configs, examples, strict=True)
    }
    alike = len(kinds) == 1 and len(comparability.kinds_of_data(runs)) == 1
    if not alike or not all(hasattr(model, "posterior") for model in abstract):
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


def _marked(value: float | None, best: float | None) -> str:
    mark = "* " if best is not None and value == best else ""
    return f"{mark}{texts.number(value)}"


def _picture(run: Run, name: str) -> bytes | None:
    return saved_reports.picture(run.folder, run.found["files"].get(name), run.workdir)


def _encoded(run: Run, config: Any, source: datasets.Source) -> posteriors.Encodings:
    """Restores the run's reported checkpoint and encodes NUM_EXAMPLES examples of the source."""
    ready = setup.prepare_evaluation(config, batch_size=64 * jax.device_count())
    _, state = saved_state.restore(run.workdir, str(run.found["step"]), ready)
    batches = batching.heldout_batches(source, ready.config, ready.mesh, num=NUM_EXAMPLES)
    encode = posteriors.encoder(ready.config, ready.mesh)
    return encode(state, (batch for _, batch in batches))
