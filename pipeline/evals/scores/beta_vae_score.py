"""β-VAE score (Higgins et al. 2017, openreview Sy2fzU9gl, section 3).

A point is the mean of |z_1 − z_2| over 64 pairs of examples that share one factor. A linear
classifier predicts the factor from the point.
"""

import warnings
from typing import NamedTuple

import numpy as np

from pipeline.evals.scores import examples, protocols

NUM_TRAIN, NUM_TEST = 10_000, 5_000  # points, as in Locatello et al. 2019
NUM_PAIRS = 64  # of a point
CHUNK = 1000  # points at a time
# The library stops after scikit-learn's default of 100, converged or not.
MOST_ITERATIONS = {protocols.LOCATELLO: 100, protocols.QUICK: 2000}


class Scores(NamedTuple):
    """The figures of this metric."""

    beta_vae_score: float  # accuracy, 0 to 1; 1/F is chance


def scores(sample: examples.Sample, *, seed: int = 0) -> Scores:
    """Returns the accuracy of logistic regression on points that it was not fitted to.

    Args:
        sample: the encoded examples.
        seed: of the pairs.
    """
    from sklearn import exceptions, linear_model  # slow to import: no training start needs it

    factors = examples.varying(sample.pool_factors)
    if factors.shape[1] == 1:
        return Scores(1.0)  # a single factor: there is nothing to guess
    random = np.random.default_rng(seed)
    columns = random.integers(factors.shape[1], size=NUM_TRAIN + NUM_TEST)
    points = differences(sample.pool_codes, factors, columns, random=random)
    learner = linear_model.LogisticRegression(max_iter=MOST_ITERATIONS[sample.protocol])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        learner.fit(points[:NUM_TRAIN], columns[:NUM_TRAIN])
    return Scores(float(learner.score(points[NUM_TRAIN:], columns[NUM_TRAIN:])))


def differences(
    codes: np.ndarray, factors: np.ndarray, columns: np.ndarray, *, random: np.random.Generator
) -> np.ndarray:
    """Returns the points, [P, D].

    Args:
        codes: [N, D] posterior means.
        factors: [N, F] class indices.
        columns: [P], the factor that the pairs of each point share. Each pair draws its own value.
        random: draws the values and the examples.
    """
    points = []
    for first in range(0, len(columns), CHUNK):
        part = np.repeat(columns[first : first + CHUNK], NUM_PAIRS)
        one, other = examples.sharing(factors, part, 2, random=random).T
        apart = np.abs(codes[one] - codes[other])
        points.append(apart.reshape(-1, NUM_PAIRS, codes.shape[1]).mean(axis=1, dtype=np.float64))
    return np.concatenate(points)
