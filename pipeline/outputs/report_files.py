"""What an evaluation writes to RUN/reports/<step>/: metrics.json, pictures, and index.html.

metrics.json holds everything that a program would read; it does not depend on devices, processes or
batches. index.html shows all of it in one file, with the run's config and curves.
"""

import datetime
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import evals
from pipeline.display import event_files, figures, pages, pictures, plots, texts
from pipeline.outputs import saved_reports
from pipeline.runtime import files, run_config

Points = Mapping[str, Sequence[tuple[int, float]]]  # (step, value) by tag
NUM_HEADLINES = 6
# The order of the charts; those with other titles follow.
ORDER = (
    "elbo", "distortion", "rate and target", "loss", "reconstruction loss", "perplexity",
    "codebook usage", "likelihood of codes", "accuracy of codes", "active units",
    "discriminator's accuracy", "weight β of the KL", "norm of the gradient", "speed",
    "waiting for data",
)  # fmt: skip


def metrics(
    about: Mapping[str, Any], values: list[evals.Value], warnings: list[str]
) -> dict[str, Any]:
    """Returns the contents of metrics.json.

    `figures` holds numbers (null if not finite), `distributions` lists of numbers, `texts`
    Markdown, and `files` the names of pictures and animations in the folder. `units` has a sentence
    for every name with its meaning and unit, or "" if the name has no row in the table of figures.
    """
    whole: dict[str, Any] = {"format": saved_reports.FORMAT, **about, "warnings": warnings}
    whole |= {"figures": {}, "distributions": {}, "texts": {}, "files": {}, "units": {}}
    for value in values:
        name, content = value.name, value.content
        if isinstance(content, str):
            whole["texts"][name] = content
        elif np.ndim(content) == 0:
            whole["figures"][name] = _finite(content)
        elif np.ndim(content) == 1:
            whole["distributions"][name] = [_finite(number) for number in content]
        else:
            whole["files"][name] = f"{name.replace('/', '-')}{_suffix(content)}"
        whole["units"][name] = figures.of(name).text
    return whole


def write(
    folder: Path,
    workdir: Path,
    config: Any,
    about: Mapping[str, Any],
    values: list[evals.Value],
    warnings: list[str],
    made: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Writes the folder's files, and returns the contents of metrics.json.

    Args:
        folder: for the files; other files in it stay.
        workdir: of the run; its event files have the curves.
        config: of the evaluation.
        about: describes the run and the checkpoint, see `report.make`.
        values: what the evaluations yielded on process 0.
        warnings: texts at the top of the page.
        made: how the report was made, names and texts; only the page shows it, because it depends
            on the machine.

    Raises:
        OSError: a file cannot be written.
    """
    found = metrics(about, values, warnings)
    # Pictures are encoded once, for their files and for the page.
    encoded = {
        value.name: _encoded(value.content) for value in values if value.name in found["files"]
    }
    for name, content in encoded.items():
        files.write(folder / found["files"][name], content)
    points = event_files.read_scalars(workdir / "tensorboard")
    page = pages.render(
        "report.html",
        made={**(made or {}), **_training(points)},
        about=about,
        warnings=warnings,
        headlines=_headlines(found["figures"]),
        found=found,
        evaluations=_by_evaluation(values, found),
        pictures=encoded,
        bars={
            name: chart
            for name, numbers in found["distributions"].items()
            if (chart := _bars(name, numbers))
        },
        curves=curves(points),
        config=run_config.flatten(config),
    )
    files.write(folder / "index.html", page)
    # metrics.json comes last: a folder that has it is complete.
    text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)
    files.write(folder / "metrics.json", text + "\n")
    return found


def curves(points: Points) -> list[str]:
    """Returns SVG charts of what the run has logged so far, from `event_files.read_scalars`."""
    logged = {tag.rpartition("/")[2] for tag in points}
    charts: dict[str, list[figures.Figure]] = {title: [] for title in ORDER}
    for figure in figures.BY_NAME.values():
        if figure.curve and figure.same_as not in logged:
            charts.setdefault(figure.curve, []).append(figure)
    drawn = []
    for title, shown in charts.items():
        tags = [f"{part}/{figure.name}" for figure in shown for part in _parts(figure)]
        series = {tag: points[tag] for tag in tags if tag in points}
        if series:
            drawn.append(plots.lines(series, title=pages.words(title), unit=shown[0].unit))
    return drawn


def _training(points: Points) -> dict[str, str]:
    """Returns how long the steps took, by their logged mean times; {} if none was logged."""
    times = points.get("train/ms_per_step", [])
    steps = [0, *(step for step, _ in times)]
    lengths = (later - earlier for earlier, later in itertools.pairwise(steps))
    pairs = zip(lengths, times, strict=True)
    seconds = sum(length * each / 1000.0 for length, (_, each) in pairs if math.isfinite(each))
    if not times:
        return {}
    spent = datetime.timedelta(seconds=round(seconds))
    return {"training time": f"{spent} for {steps[-1]:,} steps, without compiling and evaluating"}


def _parts(figure: figures.Figure) -> tuple[str, ...]:
    """Returns the prefixes of the tags that are drawn for a figure."""
    return ("train",) if figure.train_only else ("train", "heldout")


def _headlines(found: Mapping[str, Any]) -> list[str]:
    """Returns the names of the figures at the top of the page, by their rank."""
    ranked = sorted(
        (row for row in map(figures.of, found) if row.headline and row.same_as not in found),
        key=lambda row: row.headline,
    )
    return [row.name for row in ranked[:NUM_HEADLINES]]


def _by_evaluation(
    values: list[evals.Value], found: dict[str, Any]
) -> dict[str, dict[str, float | None]]:
    """Returns the figures by the evaluations that yielded them."""
    groups: dict[str, dict[str, float | None]] = {}
    for value in values:
        if value.name in found["figures"]:
            groups.setdefault(value.evaluation, {})[value.name] = found["figures"][value.name]
    return {
        evaluation: {name: group[name] for name in texts.ordered(group)}
        for evaluation, group in groups.items()
    }


def _bars(name: str, numbers: list[float | None]) -> str:
    known = [number for number in numbers if number is not None]
    if not known:
        return ""
    return plots.bars(np.array(known), title=pages.words(name), unit=figures.of(name).unit)


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _suffix(content: np.ndarray) -> str:
    return {3: ".png", 4: ".gif"}[np.ndim(content)]


def _encoded(content: np.ndarray) -> bytes:
    return pictures.png(content) if np.ndim(content) == 3 else pictures.gif(content)
