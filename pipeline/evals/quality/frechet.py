"""The Fréchet distance of two sets of features, from their means and covariances in float64.

Dowson & Landau 1982; Heusel et al. 2017 (arXiv:1706.08500) apply it to the features of Inception.
Moments of parts are merged exactly, so the whole set is never in memory (Chan et al. 1983).
"""

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """Count, mean and scatter of examples; the empty set has `Moments()`."""

    count: int = 0
    mean: np.ndarray | float = 0.0  # [F] float64
    scatter: np.ndarray | float = 0.0  # [F, F] float64: Σ (x − mean)(x − mean)ᵀ

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance, [F, F]; it needs two examples or more."""
        return np.asarray(self.scatter) / (self.count - 1)


def of(features: np.ndarray) -> Moments:
    """Returns the moments of features [N, F]."""
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    centred = features - mean
    return Moments(len(features), mean, centred.T @ centred)


def merged(first: Moments, second: Moments) -> Moments:
    """Returns the moments of the union of two disjoint sets."""
    if not first.count or not second.count:
        return first if first.count else second
    count = first.count + second.count
    apart = np.asarray(second.mean) - first.mean
    mean = first.mean + apart * (second.count / count)
    between = np.outer(apart, apart) * (first.count * second.count / count)
    return Moments(count, mean, first.scatter + second.scatter + between)


def distance(first: Moments, second: Moments) -> float:
    """Returns |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2·(Σ₁Σ₂)^½), not negative, in squared units of the features.

    The trace of the root is the sum of the roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½. That matrix is
    symmetric, so fewer examples than features need no correction.
    """
    a, b = first.covariance, second.covariance
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    between = np.linalg.eigvalsh(root @ b @ root)
    trace = np.trace(a) + np.trace(b) - 2.0 * np.sqrt(np.maximum(between, 0.0)).sum()
    apart = np.asarray(first.mean) - second.mean
    return float(max(apart @ apart + trace, 0.0))
