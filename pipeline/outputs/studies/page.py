"""The page of a study, DIR/index.html, and the same for programs, DIR/study.json."""

import json
from pathlib import Path

from pipeline.display import figures, pages, strips, terminal, texts
from pipeline.outputs import comparability, comparison
from pipeline.outputs.studies import results, statistics
from pipeline.runtime import files

STRONG = 0.6  # the share of a cell's colour at a correlation of ±1: its number stays readable


def write(folder: Path, found: results.Results, screen: terminal.Terminal) -> Path:
    """Prints the medians, writes index.html and study.json, and returns the page's path."""
    methods, metrics = found.study.methods, found.metrics
    reports = [row.report for row in found.rows]
    names = [row.planned.name for row in found.rows]
    directions = {metric: comparability.direction(metric, reports) for metric in metrics}
    summaries = {metric: {m: found.summary(m, metric) for m in methods} for metric in metrics}
    correlated, matrix = found.correlations()
    page = pages.render(
        "study.html",
        found=found,
        caution=comparability.caution(reports, names),
        arrows={m: comparison.ARROWS.get(direction, "") for m, direction in directions.items()},
        best={metric: best(summaries[metric], directions[metric]) for metric in metrics},
        summaries=summaries,
        explained={metric: found.explained(metric) for metric in metrics},
        sentence=sentence(found),
        correlated=correlated,
        cells=[[(value, colour(value)) for value in row] for row in matrix],
        charts=[
            strips.strips(
                {method: found.values(method, metric) for method in methods},
                title=pages.words(metric),
                unit=figures.of(metric).unit,
            )
            for metric in metrics
        ],
    )
    screen.columns("Medians over the seeds [quartiles]", rows(found))
    screen.note(sentence(found))
    whole = json.dumps(results.contents(found), indent=2, ensure_ascii=False, allow_nan=False)
    files.write(folder / "study.json", whole + "\n")
    files.write(folder / "index.html", page)
    return folder / "index.html"


def rows(found: results.Results) -> list[list[str]]:
    """Returns the table of medians as the terminal shows it, a row for each metric."""
    table = [["", *found.study.methods]]
    for metric in found.metrics:
        cells = [found.summary(method, metric) for method in found.study.methods]
        table.append([metric, *("-" if each is None else _shown(each) for each in cells)])
    return table


def best(by_method: dict[str, statistics.Summary | None], direction: str) -> str:
    """Returns the method with the best median; "" if no direction is better or medians are equal.

    Args:
        by_method: a metric's summaries.
        direction: "higher", "lower" or "".
    """
    medians = {method: each.median for method, each in by_method.items() if each}
    if not direction or len(set(medians.values())) < 2:
        return ""
    return comparison.BETTER[direction](medians, key=lambda method: medians[method])


def sentence(found: results.Results) -> str:
    """Returns what the shares of variance say over all metrics."""
    shares = {metric: found.explained(metric) for metric in found.metrics}
    known = {metric: share for metric, share in shares.items() if share}
    if not known:
        return "Variance needs two methods or more, one of them with two seeds or more."
    chance = next(iter(known.values())).chance
    by_seed = [metric for metric, share in known.items() if share.share < 0.5]
    named = f" ({', '.join(map(pages.words, by_seed))})" if by_seed else ""
    return (
        f"The seed explains more of the variance than the method in {len(by_seed)} of "
        f"{texts.counted(len(known), 'metric')}{named}. If methods made no difference, the "
        f"method's share would be {100 * chance:.0f} % on average."
    )


def colour(correlation: float) -> str:
    """Returns the CSS colour of a cell: blue above 0, red below, transparent at 0."""
    red, green, blue = (59, 130, 196) if correlation > 0 else (214, 80, 106)
    return f"rgba({red}, {green}, {blue}, {STRONG * abs(correlation):.3f})"


def _shown(one: statistics.Summary) -> str:
    quartiles = f"{texts.number(one.lower_quartile)}, {texts.number(one.upper_quartile)}"
    return f"{texts.number(one.median)} [{quartiles}]"
