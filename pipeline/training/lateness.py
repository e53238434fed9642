"""Says how long a stop request may have to wait, if that is longer than the grace period.

A request takes effect at one of the next readings of verdicts, or when the evaluation under way is
over. If the grace period ends before, the process leaves without a save, and the steps since its
last checkpoint are lost.
"""

from collections.abc import Callable
from typing import Any


class Lateness:
    """Compares what a run takes with `config.grace_seconds`, and warns once of each kind."""

    def __init__(self, config: Any, warn: Callable[[str], None]):
        """Without a grace period, which is 0 then, there is no warning."""
        self._grace, self._warn = config.grace_seconds, warn
        # The request enters the next dispatch, after those that are launched already. The reading
        # after that may come too early to see it, the one after next does.
        every = {name: config[name] for name in ("look_every_steps", "steps_per_dispatch")}
        self._steps = 2 * sum(every.values())
        lower = " and ".join(f"config.{name}={num}" for name, num in every.items() if num > 1)
        self._repair = f"lower {lower}" if lower else "save more often"
        self._said = set[str]()

    def of_steps(self, ms_per_step: float) -> None:
        """Judges the time of a step, in milliseconds."""
        seconds = self._steps * ms_per_step / 1000
        self._judge(
            f"{self._steps} steps of {ms_per_step / 1000:.2g} s each",
            seconds,
            self._repair,
        )

    def of_evaluation(self, at: int, seconds: float) -> None:
        """Judges the evaluation of step `at`."""
        self._judge(
            f"an evaluation, which took {seconds:.0f} s at step {at}",
            seconds,
            "run slow evaluations by pipeline.evaluate, or save more often",
        )

    def _judge(self, what: str, seconds: float, repair: str) -> None:
        if not 0 < self._grace < seconds or repair in self._said:
            return
        self._said.add(repair)
        self._warn(
            f"a stop request may wait for {what}, but config.grace_seconds={self._grace:g}: then "
            f"the process leaves without a save. Raise it, if the platform waits; else {repair}"
        )
