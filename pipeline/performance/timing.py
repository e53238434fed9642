"""Timing on noisy machines: candidates run in turn, round by round, and ratios are paired."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Ratio(NamedTuple):
    """The time of one over that of another: the median over rounds, and the middle half."""

    median: float
    low: float  # first quartile
    high: float  # third quartile

    def __str__(self) -> str:
        """Returns the median and the quartiles."""
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def in_turn(candidates: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list]:
    """Returns the seconds of every candidate in every round.

    Each runs once untimed first. Every other round goes through them backwards, so that what grows
    slower with time weighs on all alike.
    """
    for run in candidates.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    for _ in range(rounds):
        for name in order:
            began = time.perf_counter()
            candidates[name]()
            seconds[name].append(time.perf_counter() - began)
        order.reverse()
    return seconds


def ratio(seconds: Mapping[str, list[float]], one: str, other: str) -> Ratio:
    """Returns the time of `one` over that of `other`, from the rounds of `in_turn`."""
    ratios = np.asarray(seconds[one]) / np.asarray(seconds[other])
    return Ratio(*map(float, np.percentile(ratios, [50, 25, 75])))


def median(seconds: list[float]) -> float:
    """Returns the median of the rounds, seconds."""
    return float(np.median(seconds))
