"""What a person sees on stdout: a banner, progress, notes, warnings and tables of figures.

On a terminal, progress is a live bar. Otherwise each report is one plain line without control
codes, so a log file is easy to read and to search.
"""

import functools
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.display import figures


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
        self._live = active and console.is_terminal and not console.is_dumb_terminal

    def banner(self, rows: Mapping[str, str]) -> None:
        """Prints aligned `name: value` rows; a long value continues on the next line."""
        indent = max(map(len, rows), default=0) + 2
        for name, value in rows.items():
            first, *rest = self._wrapped(value, indent)
            _print(self._console, f"{name + ':':<{indent}}{first}")
            for line in rest:
                _print(self._console, " " * indent + line)

    def note(self, text: str) -> None:
        """Prints a line, above the live bar if there is one."""
        _print(self._console, text)

    def warn(self, text: str) -> None:
        """Prints a line that asks for attention, above the live bar if there is one."""
        _print(self._console, f"warning: {text}", style="yellow")

    def table(self, title: str, rows: Mapping[str, float | str]) -> None:
        """Prints a title and aligned names and values, such as the final metrics."""
        texts = {
            name: value if isinstance(value, str) else _number(value)
            for name, value in rows.items()
        }
        names_width = max(map(len, texts), default=0)
        values_width = max(map(len, texts.values()), default=0)
        _print(self._console, title, style="bold")
        for name, text in texts.items():
            _print(self._console, f"  {name:<{names_width}}  {text:>{values_width}}")

    def columns(self, title: str, rows: Sequence[Sequence[str]]) -> None:
        """Prints a title and rows of equally many texts; only the first column is flush left."""
        _print(self._console, title, style="bold")
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for first, *rest in rows:
            cells = [f"{text:>{width}}" for text, width in zip(rest, widths[1:], strict=True)]
            _print(self._console, f"  {first:<{widths[0]}}  {'  '.join(cells)}")

    @contextmanager
    def progress(
        self, total_steps: int, start_step: int = 0, *, noun: str = "step"
    ) -> Iterator["Progress"]:
        """Shows the progress of the block's steps, below the bar of an enclosing block.

        Args:
          total_steps: the step at which the run ends.
          start_step: steps done before this start; they count as done, but not for the speed.
          noun: what is counted.

        Yields:
          A `Progress`; call its `update` at each report.
        """
        if not self._live:
            yield Progress(self._console, total_steps, noun=noun)
            return
        # auto_refresh would start a thread that competes with the training loop.
        inner = bool(self._console._live_stack)
        with Live(console=self._console, auto_refresh=False, transient=inner) as live:
            # rich hides the cursor, and a SIGKILL would leave it hidden.
            self._console.show_cursor(True)
            progress = Progress(self._console, total_steps, live, noun=noun)
            progress.draw(start_step, "-:--:--", "")
            yield progress

    def _wrapped(self, value: str, indent: int) -> list[str]:
        """Returns the value's lines, broken at spaces on a screen; in logs they stay searchable."""
        lines = value.splitlines() or [""]
        if not self._live:
            return lines
        width = max(20, self._console.width - indent)
        wrap = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
        return [part for line in lines for part in wrap.wrap(line) or [""]]


class Progress:
    """The state of one progress display, which `Terminal.progress` yields."""

    def __init__(
        self, console: Console, total_steps: int, live: Live | None = None, *, noun: str = "step"
    ) -> None:
        """Shows on `live`, or as plain lines on `console` if that is None."""
        self._console = console
        self._total_steps = total_steps
        self._live = live
        self._noun = noun
        self._first: tuple[int, float] | None = None

    def update(self, step: int, *, metrics: Mapping[str, float]) -> None:
        """Reports that `step` steps are done.

        Args:
          step: number of steps done, counted from the run's beginning.
          metrics: host numbers by name, without the prefix of the tag. Those whose row in
            `display.figures` has words for the terminal are shown, in the order of the rows.
        """
        shown = (
            figure.terminal.format(_number(metrics[figure.name]))
            for figure in figures.BY_NAME.values()
            if figure.terminal and figure.name in metrics
        )
        self.report(step, "  ".join(shown))

    def report(self, step: int, status: str) -> None:
        """Reports that `step` steps are done, with a text about them."""
        self.draw(step, self._time_left(step), status)

    def draw(self, step: int, time_left: str, status: str) -> None:
        """Shows a bar with the status below it, or prints one line."""
        steps = f"{self._noun} {step}/{self._total_steps}"
        if self._live is None:
            _print(self._console, f"{steps}  {status}  {time_left} left")
            return
        row = Table.grid(expand=True, padding=(0, 1))
        row.add_column(no_wrap=True)
        row.add_column(ratio=1)
        row.add_column(no_wrap=True)
        bar = ProgressBar(total=self._total_steps, completed=step)
        row.add_row(steps, bar, f"{time_left} left")
        # The text must set its own wrapping: a note above redraws the bar with the note's options.
        below = Text(status, no_wrap=False, overflow="fold")
        self._live.update(Group(row, below), refresh=True)

    def _time_left(self, step: int) -> str:
        """Returns the time left, at the mean speed since the first report, after compilation."""
        now = self._console.get_time()
        if self._first is None:
            self._first = (step, now)
        first_step, first_time = self._first
        if step >= self._total_steps:
            return "0:00:00"
        if step == first_step:
            return "-:--:--"
        seconds = (self._total_steps - step) * (now - first_time) / (step - first_step)
        return str(timedelta(seconds=round(seconds)))


@functools.cache
def _stdout(is_terminal: bool, active: bool) -> Console:
    """Returns the only console of stdout: rich stacks bars only within one console."""
    # Without force_terminal, FORCE_COLOR, which some CI sets, would put control codes into logs.
    return Console(force_terminal=is_terminal, quiet=not active)


def _print(console: Console, text: str, *, style: str = "") -> None:
    # Without soft_wrap, rich would break long lines, in logs at 80 columns.
    # The style belongs to the text: a style passed to `print` would colour the live bar too.
    console.print(Text(text, style=style), soft_wrap=True)


def _number(value: float) -> str:
    """Returns four significant digits, or a whole number with separators from 1,000 on."""
    value = float(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
