"""Markdown pages with a part that a command writes, between two marks of the part's name."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.runtime import files


def rewrite(page: Path, part: str, lines: Sequence[str]) -> None:
    """Writes the lines between `<!-- part -->` and `<!-- /part -->`.

    Raises:
        ValueError: the page has not exactly one of each mark, in this order.
    """
    files.write(page, replaced(page.read_text(), part, lines))


def replaced(text: str, part: str, lines: Sequence[str]) -> str:
    """Returns the page's text with these lines in place of the part's; errors as in `rewrite`."""
    start, end = f"<!-- {part} -->\n", f"<!-- /{part} -->\n"
    before, found_start, rest = text.partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end) or start in rest or end in before + after:
        raise ValueError(
            f"the page needs one line {start.strip()} and one line {end.strip()} below it"
        )
    return "".join([before, start, *(f"{line}\n" for line in lines), end, after])
