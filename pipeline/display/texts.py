"""Texts as terminals and logs show them: numbers, counts, and names that others chose."""

import re
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from pipeline.display import figures

AMPERSAND = re.compile(r"&(?!#?\w+;)")  # that begins no entity
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def show(console: Console, text: str, *, style: str = "") -> None:
    """Prints a text, in the style of rich that `style` names."""
    # Without soft_wrap, rich would break long lines, in logs at 80 columns.
    # The style belongs to the text: a style passed to `print` would colour the live bar too.
    console.print(Text(visible(text), style=style), soft_wrap=True)


def visible(text: str) -> str:
    """Returns the text with control characters as escapes: a name of a run may hold some."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def counted(count: int, noun: str) -> str:
    """Returns the count with its noun, whose plural ends in -s or -es: "1 device", "2 classes"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def number(value: float | None) -> str:
    """Returns four significant digits, or a whole number with separators from 1,000 on.

    The minus sign is that of ASCII, so that figures can be found in a log. None is "-".
    """
    if value is None:
        return "-"
    value = float(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def ordered(names: Iterable[str]) -> list[str]:
    """Returns names of figures in the order of their table, but the loss and the ELBO first."""
    rank = {name: place for place, name in enumerate(figures.BY_NAME)}
    rank |= {"loss": -2, "elbo": -1}
    return sorted(names, key=lambda name: rank.get(name, len(rank)))


def inert(markdown: str) -> str:
    """Returns Markdown in which HTML, links and pictures of the source are plain text.

    Texts of a run may contain names that others chose: of classes, folders, or config values.
    """
    text = AMPERSAND.sub("&amp;", visible(markdown)).replace("<", "&lt;")
    for end, entity in (("](", "]&#40;"), ("][", "]&#91;"), ("]:", "]&#58;")):
        text = text.replace(end, entity)
    return text


def cell(value: object) -> str:
    """Returns a value as it stands in a cell of a Markdown table: plain text on one line."""
    text = inert(" ".join(str(value).splitlines()))
    for mark in "|*`[]\\":
        text = text.replace(mark, f"&#{ord(mark)};")
    return text
