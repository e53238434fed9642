"""Which figures of which runs may be ranked: of the same data, and of the same meaning.

A figure with a direction is ranked over all runs on the same data. A likelihood compares only with
the same kind of likelihood, and a loss only with the same objective.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.display import figures, texts
from pipeline.training import fingerprint

# Figures that contain log p(x|z), which is a probability or a density, by the kind of likelihood.
OF_LIKELIHOOD = (
    "elbo", "distortion", "bits_per_dim", "iw_elbo", "iw_bits_per_dim", "reconstruction_loss",
)  # fmt: skip


class Run(NamedTuple):
    """One run's report."""

    workdir: Path
    folder: Path  # holds metrics.json
    found: Mapping[str, Any]  # contents of metrics.json
    config: Mapping[str, Any]  # flat


def direction(name: str, runs: Sequence[Run]) -> str:
    """Returns "higher" or "lower" if one of the runs is best by this figure, else ""."""
    figure = figures.of(name)
    known = figure.direction
    having = [run for run in runs if run.found["figures"].get(name) is not None]
    if not known and _alike(having, "model."):
        known = figure.within_run
    if name in OF_LIKELIHOOD and not _alike(having, "model.likelihood", "data.variance"):
        known = ""
    return known if len(kinds_of_data(runs)) == 1 else ""


def kinds_of_data(runs: Sequence[Run]) -> list[list[Run]]:
    """Returns the runs in groups of the same evaluated data, in the order of the runs."""
    groups: list[list[Run]] = []
    for run in runs:
        for group in groups:
            if _same_data(group[0], run):
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def caution(runs: Sequence[Run], names: Sequence[str]) -> str:
    """Returns a sentence if the runs are on different data, else ""."""
    groups = kinds_of_data(runs)
    if len(groups) < 2:
        return ""
    named = dict(zip([run.workdir for run in runs], names, strict=True))
    parts = [
        f"{', '.join(named[run.workdir] for run in group)} on {_data_of(group[0])}"
        for group in groups
    ]
    return f"These runs are on different data, so no figure is ranked: {'; '.join(parts)}."


def _alike(runs: Sequence[Run], *prefixes: str) -> bool:
    """Says whether all runs have the same values of the config fields with these prefixes."""
    parts = [
        {field: value for field, value in run.config.items() if field.startswith(prefixes)}
        for run in runs
    ]
    return all(part == parts[0] for part in parts)


def _same_data(one: Run, other: Run) -> bool:
    if _counts(one) != _counts(other):
        return False
    fingerprints = [fingerprint.read(run.workdir) or {} for run in (one, other)]
    if not all(fingerprints):
        # Older runs keep no fingerprint: their folders must do.
        return one.config.get("data.path") == other.config.get("data.path")
    # Digests depend on which examples are held out, and so on the seed.
    seeds_differ = one.config.get("seed") != other.config.get("seed")
    pairs = (
        [each[name] for each in fingerprints]
        for name in fingerprints[0].keys() & fingerprints[1].keys()
    )
    return all(
        ours == theirs or (seeds_differ and all(map(fingerprint.DIGEST.fullmatch, (ours, theirs))))
        for ours, theirs in pairs
    )


def _counts(run: Run) -> tuple[Any, ...]:
    """Returns what a report says of its data, in a form that can be compared."""
    data = run.found.get("data", {})
    fields = ("name", "train", "heldout", "entries")
    return (*(json.dumps(data.get(field)) for field in fields), run.found["examples"])


def _data_of(run: Run) -> str:
    data, parts = run.found.get("data", {}), []
    parts.append(str(data.get("name", run.config.get("data.name", "unknown data"))))
    if run.config.get("data.path"):
        parts.append(f"in {run.config['data.path']}")
    return f"{' '.join(parts)} ({texts.counted(run.found['examples'], 'held-out example')})"
