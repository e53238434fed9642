"""Mutual information gap (MIG) as Chen et al. 2018 define it (arXiv:1802.04942, section 4.1).

I(z_d; v_k) = E_q(z_d, v_k)[log q(z_d|v_k)] + H(z_d), without bins. q(z_d) is the mixture of the
posteriors of all examples, and q(z_d|v_k) of those with that value of the factor.

Difference from the paper: our mixtures contain the encoded examples, the paper's contain all
images. The paper draws z and leaves out shape, which has no order. We also compute the other
conventions in use, with shape and with posterior means for z.
"""

from collections.abc import Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from pipeline.evals.scores import mig, mutual_information

NUM_POINTS = 4096  # examples that estimate the expectation: the error is about 0.02 nats
CHUNK = 2**18  # densities at a time: one megabyte, so that they stay in the processor's cache


class Scores(NamedTuple):
    """The figures of this metric, each 0 to 1."""

    mig_chen: float  # z drawn from the posterior, without the excluded factors: the paper's
    mig_chen_all_factors: float  # z drawn, every factor
    mig_chen_means: float  # z the posterior mean, without the excluded factors
    mig_chen_means_all_factors: float  # z the posterior mean, every factor


def scores(
    mean: np.ndarray,
    log_variance: np.ndarray,
    factors: np.ndarray,
    *,
    seed: int = 0,
    excluded: Sequence[int] = (),
) -> Scores:
    """Returns the gaps for posteriors N(mean, exp(log_variance)).

    Args:
        mean: [N, D].
        log_variance: [N, D].
        factors: [N, F] class indices; at least one that is not excluded must vary.
        seed: of the draws of z.
        excluded: columns of `factors` that the paper's convention leaves out.
    """
    noise = np.random.default_rng(seed).standard_normal(mean.shape)
    drawn = mean + np.exp(0.5 * log_variance) * noise
    entropy = mutual_information.entropies(factors)
    every = entropy > 0
    without = every & ~np.isin(np.arange(factors.shape[1]), excluded)
    found = []
    for points in (drawn, mean):
        known = np.maximum(information(points[:NUM_POINTS], mean, log_variance, factors), 0.0)
        gaps = mig.gaps(known / np.where(every, entropy, 1.0))
        found += [float(gaps[without].mean()), float(gaps[every].mean())]
    return Scores(*found)


def information(
    points: np.ndarray, mean: np.ndarray, log_variance: np.ndarray, factors: np.ndarray
) -> np.ndarray:
    """Returns I(z_d; v_k) in nats, [D, F].

    Args:
        points: [P, D], the z of the first P examples.
        mean: [N, D], means of the posteriors.
        log_variance: [N, D], log variances of the posteriors.
        factors: [N, F] class indices.
    """
    anywhere = log_mixture(points, mean, log_variance)
    found = np.empty((mean.shape[1], factors.shape[1]))
    for k, factor in enumerate(factors.T):
        given = np.empty_like(anywhere)
        own = factor[: len(points)]
        for value in np.unique(own):
            chosen = factor == value
            given[own == value] = log_mixture(
                points[own == value], mean[chosen], log_variance[chosen]
            )
        found[:, k] = (given - anywhere).mean(axis=0, dtype=np.float64)
    return found


def log_mixture(points: np.ndarray, mean: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """Returns log q(z_d) up to a constant, [P, D], for points [P, D] and posteriors [M, D]."""
    with futures.ThreadPoolExecutor() as threads:  # NumPy releases the interpreter's lock
        columns = threads.map(_log_mixture, points.T, mean.T, log_variance.T)
        return np.stack(list(columns), axis=1)


def _log_mixture(points: np.ndarray, mean: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """Returns `log_mixture` of one latent, [P] float32, for points [P] and posteriors [M]."""
    points, mean = points.astype(np.float32), mean.astype(np.float32)
    log_variance = log_variance.astype(np.float32)
    deviation = np.exp(0.5 * log_variance)
    found, size = np.empty_like(points), max(1, CHUNK // len(mean))
    for first in range(0, len(points), size):
        rows = slice(first, first + size)
        # Minus twice the log density, in place, because most of the time is spent here.
        terms = points[rows, None] - mean
        terms /= deviation
        np.square(terms, out=terms)
        terms += log_variance
        least = terms.min(axis=1)
        terms -= least[:, None]
        terms *= -0.5
        found[rows] = np.log(np.exp(terms, out=terms).mean(axis=1)) - 0.5 * least
    return found
