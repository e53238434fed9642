"""Separated attribute predictability, SAP (Kumar et al. 2018, arXiv:1711.00848, section 3).

A linear support vector machine predicts every factor from a single latent. The score is the gap in
accuracy between the best latent and the second best.
"""

from typing import NamedTuple

import numpy as np

from pipeline.evals.scores import examples, mig

PENALTY = 0.01  # C of the support vector machine, as in Locatello et al. 2019


class Scores(NamedTuple):
    """The figures of this metric."""

    sap: float  # 0 to 1


def scores(sample: examples.Sample, *, seed: int = 0) -> Scores:
    """Returns the mean gap over factors, on held-out examples.

    Args:
        sample: the encoded examples.
        seed: not used.
    """
    del seed
    return Scores(float(mig.gaps(accuracies(sample.split)).mean()))


def accuracies(part: examples.Split) -> np.ndarray:
    """Returns the accuracy on held-out examples of every factor from every latent, [D, F]."""
    from sklearn import svm  # slow to import: no training start needs it

    found = np.empty((part.train_codes.shape[1], part.train_factors.shape[1]))
    for d, k in np.ndindex(found.shape):
        # dual=False is faster with more examples than latents, and draws no random numbers.
        learner = svm.LinearSVC(C=PENALTY, class_weight="balanced", dual=False)
        learner.fit(part.train_codes[:, [d]], part.train_factors[:, k])
        found[d, k] = learner.score(part.test_codes[:, [d]], part.test_factors[:, k])
    return found
