"""Statistics of a study: over the seeds of a method, between methods, and between metrics."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Summary(NamedTuple):
    """A metric over the seeds of one method, in the metric's unit."""

    values: tuple[float, ...]  # one per seed
    median: float
    lower_quartile: float
    upper_quartile: float
    mean: float
    half_width: float | None  # of the t interval of the mean; None of a single seed

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the mean at level `CONFIDENCE`."""
        if self.half_width is None:
            return None
        return self.mean - self.half_width, self.mean + self.half_width


def summary(values: Sequence[float]) -> Summary | None:
    """Returns the summary of finite values, or None if there are none.

    Quartiles interpolate linearly, as NumPy does by default. The interval is Student's, mean ±
    t(0.975, n − 1)·s/√n. It assumes that seeds are normally distributed, and is wide for few seeds:
    4.30·s/√3 for three.
    """
    if not values:
        return None
    numbers = np.asarray(values, np.float64)
    lower, median, upper = np.quantile(numbers, (0.25, 0.5, 0.75))
    num, half_width = len(numbers), None
    if num > 1:
        quantile = stats.t.ppf((1.0 + CONFIDENCE) / 2.0, num - 1)
        half_width = float(quantile * numbers.std(ddof=1) / np.sqrt(num))
    return Summary(
        values=tuple(map(float, values)),
        median=float(median),
        lower_quartile=float(lower),
        upper_quartile=float(upper),
        mean=float(numbers.mean()),
        half_width=half_width,
    )


class Explained(NamedTuple):
    """How much of a metric's variance over all runs lies between the methods."""

    share: float  # η², 0 to 1; the rest lies between the seeds of a method
    chance: float  # η² to be expected if methods make no difference


def explained(groups: Sequence[Sequence[float]]) -> Explained | None:
    """Returns η² = (sum of squares between groups) / (total sum of squares), and its chance level.

    Locatello et al. 2019 (arXiv:1811.12359) compare objectives and seeds by it. Without an effect
    the expectation of η² over N normal values in M groups is (M − 1)/(N − 1).

    Args:
        groups: the values of each method, of one seed or more.

    Returns:
        None if there are fewer than two methods, no method with two seeds, or equal values only.
    """
    arrays = [np.asarray(group, np.float64) for group in groups if len(group)]
    if len(arrays) < 2 or max(map(len, arrays)) < 2:
        return None
    pooled = np.concatenate(arrays)
    total = np.square(pooled - pooled.mean()).sum()
    if not total > 0:
        return None
    between = sum(len(each) * (each.mean() - pooled.mean()) ** 2 for each in arrays)
    return Explained(float(between / total), (len(arrays) - 1) / (len(pooled) - 1))


def rank_correlations(values: np.ndarray) -> np.ndarray:
    """Returns Spearman's ρ of all pairs of columns, [M, M] in −1 to 1.

    Args:
        values: [N, M], N runs by M metrics. No column may hold equal values only.
    """
    ranks = stats.rankdata(values, axis=0)
    return np.clip(np.atleast_2d(np.corrcoef(ranks, rowvar=False)), -1.0, 1.0)
