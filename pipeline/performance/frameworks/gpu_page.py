"""The page of a GPU node's figures, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.performance import timing
from pipeline.performance.frameworks import forms


def markdown(figures: Mapping[str, Any], works: Sequence[str], names: Sequence[str]) -> str:
    """Returns the page of all parts; `works` and `names` of forms are its columns and rows."""
    lines = ["# Figures of a GPU node", ""]
    lines += [f"- {name}: {value}" for name, value in figures["about"].items()]
    lines += ["", "Above 1, this pipeline is faster.", ""]
    lines += [
        f"| a step there over a step here | {' | '.join(works)} |",
        "|---" * (len(works) + 1) + "|",
    ]
    for name in names:
        cells = [_cell(figures.get(work, {}), name) for work in works]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| benchmark | |", "|---|---|"]
    for section, found in figures.get("benchmark", {}).items():
        rows = found.items() if isinstance(found, dict) else [("", found)]
        lines += [f"| {section}: {what} | {_shown(value)} |" for what, value in rows]
    missing = dict(figures.get("left out", {}))
    missing |= {
        work: figures[work]["absent"] for work in works if "absent" in figures.get(work, {})
    }
    lines += ["", *(f"- no {what}: {why}" for what, why in missing.items())]
    return "\n".join(lines).rstrip() + "\n"


def _cell(found: Mapping[str, Any], name: str) -> str:
    if name not in found:
        return "–"
    return f"{found[name]['ms']:.4g} ms" if name == forms.OURS else str(found[name]["ratio"])


def _shown(value: Any) -> str:
    """Returns a figure of the benchmark's file, in which a ratio is a list."""
    if isinstance(value, list):
        return str(timing.Ratio(*value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
