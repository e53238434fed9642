"""Timing on noisy machines: candidates run in turn, round by round, and ratios are paired.

Load from elsewhere then slows both sides of a ratio alike.
"""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

Key = TypeVar("Key")  # the name of a candidate


class Ratio(NamedTuple):
    """The time of one candidate over that of another: the median over rounds, and the quartiles."""

    median: float
    low: float  # first quartile
    high: float  # third quartile

    def __str__(self) -> str:
        """Returns the median, and the quartiles in brackets."""
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def in_turn(candidates: Mapping[Key, Callable[[], object]], *, rounds: int) -> dict[Key, list]:
    """Returns {name: seconds in each round}.

    Each candidate runs once untimed before the first round. Every second round runs them in
    reverse order, so that a machine that becomes slower with time affects all of them alike.
    """
    for run in candidates.values():
        run()
    seconds: dict[Key, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    for _ in range(rounds):
        for name in order:
            began = time.perf_counter()
            candidates[name]()
            seconds[name].append(time.perf_counter() - began)
        order.reverse()
    return seconds


def ratio(seconds: Mapping[str, list[float]], one: str, other: str) -> Ratio:
    """Returns the time of `one` over that of `other`, paired by the rounds of `in_turn`."""
    return quartiles(np.asarray(seconds[one]) / np.asarray(seconds[other]))


def quartiles(ratios: np.ndarray) -> Ratio:
    """Returns the median and the quartiles of the rounds' ratios."""
    return Ratio(*map(float, np.percentile(ratios, [50, 25, 75])))


def median(seconds: list[float]) -> float:
    """Returns the median over the rounds, in the unit of the list."""
    return float(np.median(seconds))
