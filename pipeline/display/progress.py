"""The progress of counted steps: a live bar on a terminal, otherwise a plain line a report."""

from collections.abc import Mapping
from datetime import timedelta

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.display import figures, texts
from pipeline.runtime import throttle

MOVE_SECONDS = 0.2  # between two movements of a bar
UNKNOWN = "-:--:--"  # time left


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
        self._step, self._status, self._doing = 0, "", ""
        self._moves = throttle.Throttle(MOVE_SECONDS)

    def update(self, step: int, *, metrics: Mapping[str, float]) -> None:
        """Reports that `step` steps are done.

        Args:
          step: number of steps done, counted from the run's beginning.
          metrics: host numbers by name, without the prefix of the tag. Those whose row in
            `display.figures` has words for the terminal are shown, in the order of the rows.
        """
        shown = (
            figure.terminal.format(texts.number(metrics[figure.name]))
            for figure in figures.BY_NAME.values()
            if figure.terminal and figure.name in metrics
        )
        self.report(step, "  ".join(shown))

    def report(self, step: int, status: str) -> None:
        """Reports that `step` steps are done, with a text about them."""
        self._doing, self._step, self._status = "", step, status
        self.draw(step, self._time_left(step), status)

    def move(self, step: int, doing: str = "") -> None:
        """Moves the bar to `step`, some times a second; `doing` replaces the status at once.

        Without a bar, it prints the first `doing` that is no mere step, so that a log says why
        nothing happens.

        Args:
          step: number of steps done or started.
          doing: what takes longer than a step, such as "compiling"; "" means steps.
        """
        if doing == self._doing and (doing or not self._moves.due()):
            return
        self._doing, self._step = doing, step
        known = self._first is not None
        left = self._time_left(step) if known or not doing else UNKNOWN
        if self._live is not None:
            self.draw(step, left, f"{doing} …" if doing else self._status)
        elif doing and not known:
            texts.show(self._console, f"{doing} …")

    def settle(self) -> None:
        """Ends the bar with what was reported last, instead of what was under way."""
        if self._doing:
            self.move(self._step)

    def draw(self, step: int, time_left: str, status: str) -> None:
        """Shows a bar with the status below it, or prints one line."""
        steps = f"{self._noun} {step}/{self._total_steps}"
        if self._live is None:
            parts = filter(None, (steps, status, f"{time_left} left"))
            texts.show(self._console, "  ".join(parts))
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
            return UNKNOWN
        seconds = (self._total_steps - step) * (now - first_time) / (step - first_step)
        return str(timedelta(seconds=round(seconds)))
