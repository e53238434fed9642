"""The Fréchet distance of two sets of features, from their means and covariances in float64.

Dowson & Landau 1982; Heusel et al. 2017 (arXiv:1706.08500) apply it to the features of Inception.
Moments of parts are merged exactly, so the whole set is never in memory (Chan et al. 1983).
"""

import math
from typing import NamedTuple

import numpy as np

GROUP = 1024  # features that become moments at once, so that bits don't depend on batches


class Moments(NamedTuple):
    """Number, mean and scatter of examples; the empty set has `Moments()`."""

    num: int = 0
    mean: np.ndarray | float = 0.0  # [F] float64
    scatter: np.ndarray | float = 0.0  # [F, F] float64: Σ (x − mean)(x − mean)ᵀ

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance, [F, F]; it needs two examples or more."""
        return np.asarray(self.scatter) / (self.num - 1)


def of(features: np.ndarray) -> Moments:
    """Returns the moments of features [N, F]."""
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    centred = features - mean
    return Moments(len(features), mean, centred.T @ centred)


def merged(first: Moments, second: Moments) -> Moments:
    """Returns the moments of the union of two disjoint sets."""
    if not first.num or not second.num:
        return first if first.num else second
    num = first.num + second.num
    apart = np.asarray(second.mean) - first.mean
    mean = first.mean + apart * (second.num / num)
    between = np.outer(apart, apart) * (first.num * second.num / num)
    return Moments(num, mean, first.scatter + second.scatter + between)


def distance(first: Moments, second: Moments) -> float:
    """Returns |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2·(Σ₁Σ₂)^½), not negative.

    The trace of the root is the sum of the roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½. That matrix is
    symmetric, so fewer examples than features need no correction. Of features that are not finite
    the distance is NaN.
    """
    a, b = first.covariance, second.covariance
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    between = np.linalg.eigvalsh(root @ b @ root)
    trace = np.trace(a) + np.trace(b) - 2.0 * np.sqrt(np.maximum(between, 0.0)).sum()
    apart = np.asarray(first.mean) - second.mean
    return float(max(apart @ apart + trace, 0.0))


class Stream:
    """Features that come in batches of any size; holds at most a group of them, and moments."""

    def __init__(self) -> None:
        """Begins with no features."""
        self._rows: list[np.ndarray] = []
        self._moments = Moments()

    def add(self, features: np.ndarray) -> None:
        """Adds features [n, F]."""
        self._rows.append(features)
        if sum(map(len, self._rows)) < GROUP:
            return
        rows = np.concatenate(self._rows)
        whole = len(rows) // GROUP * GROUP
        for group in np.split(rows[:whole], whole // GROUP):
            self._moments = merged(self._moments, of(group))
        self._rows = [rows[whole:]]

    @property
    def moments(self) -> Moments:
        """Those of all features so far."""
        rest = [rows for rows in self._rows if len(rows)]
        return merged(self._moments, of(np.concatenate(rest))) if rest else self._moments
