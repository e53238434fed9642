"""What a person sees on stdout: a banner, progress, notes, warnings and tables of figures.

On a terminal, progress is a live bar. Otherwise each report is one plain line without control
codes, so a log file is easy to read and to search.
"""

import functools
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from pipeline.display import figures, texts
from pipeline.display.progress import UNKNOWN, Progress


class Terminal:
    """The screen or log of one process."""

    def __init__(self, *, active: bool = True, console: Console | None = None) -> None:
        """Decides whether progress is a live bar: only if the console is a terminal.

        Args:
          active: False on every process but 0; such a terminal prints nothing.
          console: a rich console to write to, for tests; None means stdout.
        """
        if console is None or not active:
            console = _stdout(sys.stdout is not None and sys.stdout.isatty(), active)
        self._console = console
        self.live = active and console.is_terminal and not console.is_dumb_terminal

    def banner(self, rows: Mapping[str, str], *, whole: bool = False) -> None:
        """Prints aligned `name: value` rows; a long value continues on the next line.

        Args:
          rows: values by name.
          whole: breaks no value, so that a command can be copied.
        """
        indent = max(map(len, rows), default=0) + 2
        for name, value in rows.items():
            first, *rest = [value] if whole else self._wrapped(value, indent)
            texts.show(self._console, f"{name + ':':<{indent}}{first}")
            for line in rest:
                texts.show(self._console, " " * indent + line)

    def note(self, text: str) -> None:
        """Prints a line, above the live bar if there is one."""
        texts.show(self._console, text)

    def warn(self, text: str) -> None:
        """Prints a line that asks for attention, above the live bar if there is one."""
        texts.show(self._console, f"warning: {text}", style="yellow")

    def figures(self, title: str, values: Mapping[str, float | None]) -> None:
        """Prints figures with their units, in the order of the table of figures."""
        rows = [(name, texts.number(values[name]), figures.of(name).unit)
                for name in texts.ordered(values)]  # fmt: skip
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        texts.show(self._console, title, style="bold")
        for name, text, unit in rows:
            line = f"  {name:<{widths[0]}}  {text:>{widths[1]}}  {unit}"
            texts.show(self._console, line.rstrip())

    def table(self, title: str, rows: Mapping[str, float | str]) -> None:
        """Prints a title and aligned names and values, such as the final metrics."""
        shown = {
            name: value if isinstance(value, str) else texts.number(value)
            for name, value in rows.items()
        }
        names_width = max(map(len, shown), default=0)
        values_width = max(map(len, shown.values()), default=0)
        texts.show(self._console, title, style="bold")
        for name, text in shown.items():
            texts.show(self._console, f"  {name:<{names_width}}  {text:>{values_width}}")

    def columns(self, title: str, rows: Sequence[Sequence[str]]) -> None:
        """Prints a title and rows of equally many texts; only the first column is flush left."""
        texts.show(self._console, title, style="bold")
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for first, *rest in rows:
            cells = [f"{text:>{width}}" for text, width in zip(rest, widths[1:], strict=True)]
            texts.show(self._console, f"  {first:<{widths[0]}}  {'  '.join(cells)}")

    @contextmanager
    def progress(
        self, total_steps: int, start_step: int = 0, *, noun: str = "step", transient: bool = False
    ) -> Iterator[Progress]:
        """Shows the progress of the block's steps, below the bar of an enclosing block.

        Args:
          total_steps: the step at which the run ends.
          start_step: steps done before this start; they count as done, but not for the speed.
          noun: what is counted.
          transient: removes the bar at the end, because a line takes its place.

        Yields:
          A `Progress`; call its `update` at each report.
        """
        if not self.live:
            yield Progress(self._console, total_steps, noun=noun)
            return
        # auto_refresh would start a thread that competes with the training loop.
        transient |= bool(self._console._live_stack)
        with Live(console=self._console, auto_refresh=False, transient=transient) as live:
            # rich hides the cursor, and a SIGKILL would leave it hidden.
            self._console.show_cursor(True)
            progress = Progress(self._console, total_steps, live, noun=noun)
            progress.draw(start_step, UNKNOWN, "")
            try:
                yield progress
            finally:
                progress.settle()

    def _wrapped(self, value: str, indent: int) -> list[str]:
        """Returns the value's lines, broken at spaces on a screen; in logs they stay searchable."""
        lines = value.splitlines() or [""]
        if not self.live:
            return lines
        width = max(20, self._console.width - indent)
        wrap = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
        return [part for line in lines for part in wrap.wrap(line) or [""]]


@functools.cache
def _stdout(is_terminal: bool, active: bool) -> Console:
    """Returns the only console of stdout: rich stacks bars only within one console."""
    # Without force_terminal, FORCE_COLOR, which some CI sets, would put control codes into logs.
    return Console(force_terminal=is_terminal, quiet=not active)
