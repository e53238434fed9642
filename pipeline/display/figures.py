"""The logged figures by name: what each one means, its unit, and where it is drawn.

`figure_table` has the rows. TensorBoard, the report, the progress line, comparisons and the page
`pipeline/evals/README.md` all read them. A figure without a row is shown under its own name.
`python -m pipeline.display.figures` updates the page.
"""

import re
from pathlib import Path

from pipeline.display import figure_table, marked_pages

PAGE = Path(__file__).parents[1] / "evals" / "README.md"
Figure = figure_table.Figure
TABLE = figure_table.TABLE
NUMBER = re.compile(r"_\d+$")  # how many examples a figure is of, at the end of its name
BY_NAME = {figure.name: figure for figure in TABLE}


def of(tag: str) -> Figure:
    """Returns the figure of a tag or name; one without unit and text if it has no row.

    A row whose name ends in `_N` stands for every number N: `fid_N` for `fid_10000`.
    """
    name = tag.rpartition("/")[2]
    row = BY_NAME.get(name) or BY_NAME.get(NUMBER.sub("_N", name))
    return row._replace(name=name) if row else Figure(name, "", "")


def lines() -> list[str]:
    """Returns the page's table as lines of Markdown."""
    rows = ["| name | meaning | unit | better | needs |", "|---|---|---|---|---|"]
    for one in BY_NAME.values():
        meaning = f"{one.text} {one.more}".strip().replace("|", r"\|")
        needs = f"`{one.needs}`" if one.needs else ""
        rows.append(f"| `{one.name}` | {meaning} | {one.unit or '–'} | {one.direction} | {needs} |")
    return rows


if __name__ == "__main__":
    marked_pages.rewrite(PAGE, "figures", lines())
