"""What came out of a study: the figures of its evaluated runs, and what follows from them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.outputs import comparability, comparison, saved_reports
from pipeline.outputs.studies import declared, statistics
from pipeline.runtime import errors, run_config

FORMAT = 1  # of study.json


class Row(NamedTuple):
    """An evaluated run: its place in the study, its report, and its figures."""

    planned: declared.Planned
    report: comparability.Run
    figures: Mapping[str, float | None]  # the study's metrics, and its UDR


class Results(NamedTuple):
    """The evaluated runs of a study, and the names of those that are missing."""

    study: declared.Study
    rows: tuple[Row, ...]
    missing: tuple[str, ...]

    @property
    def metrics(self) -> list[str]:
        """The study's metrics that a run has, and after them its UDR."""
        names = dict.fromkeys((*self.study.metrics, *(n for row in self.rows for n in row.figures)))
        return [
            name for name in names if any(row.figures.get(name) is not None for row in self.rows)
        ]

    def of(self, method: str) -> list[Row]:
        """Returns the rows of a method, by seed."""
        return [row for row in self.rows if row.planned.method == method]

    def values(self, method: str, metric: str) -> list[float]:
        """Returns the metric of the method's runs that have it, by seed."""
        found = (row.figures.get(metric) for row in self.of(method))
        return [value for value in found if value is not None]

    def summary(self, method: str, metric: str) -> statistics.Summary | None:
        """Returns the metric over the seeds of a method."""
        return statistics.summary(self.values(method, metric))

    def explained(self, metric: str) -> statistics.Explained | None:
        """Returns how much of the metric's variance lies between the methods."""
        return statistics.explained([self.values(method, metric) for method in self.study.methods])

    def correlations(self) -> tuple[list[str], np.ndarray]:
        """Returns M metrics and their rank correlations over all runs, [M, M].

        A metric that a run lacks, or that is the same in all runs, is left out.
        """
        columns = {name: [row.figures.get(name) for row in self.rows] for name in self.metrics}
        whole = {
            name: column
            for name, column in columns.items()
            if None not in column and len(set(column)) > 1
        }
        table = np.array(list(whole.values()), np.float64).T
        if len(whole) < 2:
            return list(whole), np.ones((len(whole), len(whole)))
        return list(whole), statistics.rank_correlations(table)


def gather(study: declared.Study) -> Results:
    """Reads the reports of all runs, and encodes images with them for UDR.

    Raises:
        InputError: no run has a report.
    """
    rows: list[Row] = []
    missing = []
    for run in study.runs:
        found = _read(study, run)
        if found is None:
            missing.append(run.name)
            continue
        config = run_config.flatten(run_config.load(run.workdir))
        report = comparability.Run(run.workdir, run.report, found, config)
        chosen = {name: found["figures"].get(name) for name in study.metrics}
        rows.append(Row(run, report, chosen))
    if not rows:
        raise errors.InputError(
            "no run of the study is trained and evaluated: run it without --page first"
        )
    ranked = {
        name: figures
        for method in study.methods
        for name, figures in _ranked([row for row in rows if row.planned.method == method])
    }
    rows = [row._replace(figures={**row.figures, **ranked[row.planned.name]}) for row in rows]
    return Results(study, tuple(rows), tuple(missing))


def contents(found: Results) -> dict[str, Any]:
    """Returns the contents of study.json; what is unknown is null."""
    study, names = found.study, found.metrics
    correlated, matrix = found.correlations()
    summaries = {
        metric: {method: found.summary(method, metric) for method in study.methods}
        for metric in names
    }
    shares = {metric: found.explained(metric) for metric in names}
    return {
        "format": FORMAT,
        "study": study.title,
        "methods": list(study.methods),
        "seeds": list(study.seeds),
        "missing": list(found.missing),
        "runs": [
            {
                "run": row.planned.name,
                "method": row.planned.method,
                "seed": row.planned.seed,
                "step": row.report.found["step"],
                "arguments": list(row.planned.arguments),
                "figures": dict(row.figures),
            }
            for row in found.rows
        ],
        "summaries": {
            metric: {
                method: each._asdict() | {"interval": each.interval}
                for method, each in by_method.items()
                if each
            }
            for metric, by_method in summaries.items()
        },
        "variance_explained_by_method": {
            metric: share._asdict() for metric, share in shares.items() if share
        },
        "rank_correlations": {"metrics": correlated, "spearman": matrix.tolist()},
    }


def _read(study: declared.Study, run: declared.Planned) -> dict[str, Any] | None:
    """Returns the report of a run that is trained and evaluated, else None."""
    if not (run.is_trained and study.is_evaluated(run)):
        return None
    try:
        return saved_reports.read(run.report, run.workdir)
    except saved_reports.Damaged:
        return None


def _ranked(rows: Sequence[Row]) -> list[tuple[str, dict[str, float | None]]]:
    """Returns the names of one method's runs, each with its UDR; it needs two seeds or more."""
    ranks: Mapping[str, list[float | None]] = {}
    if len(rows) > 1:
        ranks = comparison.ranking([row.report for row in rows])
    return [
        (row.planned.name, {name: _finite(values[place]) for name, values in ranks.items()})
        for place, row in enumerate(rows)
    ]


def _finite(value: float | None) -> float | None:
    """Returns None for the UDR of a run whose latents are not finite."""
    return value if value is not None and math.isfinite(value) else None
