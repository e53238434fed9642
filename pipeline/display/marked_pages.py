"""Markdown pages with a part that a command writes, between two marks of the part's name."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.runtime import errors, files


def rewrite(page: Path, part: str, lines: Sequence[str]) -> None:
    """Writes the lines between `<!-- part -->` and `<!-- /part -->`.

    Raises:
        InputError: the page has not exactly one of each mark, in this order.
    """
    files.write(page, replaced(page.read_text(), part, lines, of=str(page)))


def replaced(text: str, part: str, lines: Sequence[str], *, of: str = "the page") -> str:
    """Returns the page's text with these lines in place of the part's; errors name `of`."""
    start, end = f"<!-- {part} -->\n", f"<!-- /{part} -->\n"
    before, found_start, rest = text.partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end) or start in rest or end in before + after:
        first, last = start.strip(), end.strip()
        raise errors.InputError(
            f"{of} has no lines {first} and {last}: it needs one line {first} and one {last} below"
        )
    return "".join([before, start, *(f"{line}\n" for line in lines), end, after])
