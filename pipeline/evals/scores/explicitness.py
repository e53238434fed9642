"""Explicitness (Ridgeway & Mozer 2018, arXiv:1802.05312, section 3): a linear model reads factors.

A linear model cannot separate a value in the middle of a latent's range from both sides at once. So
a factor of many values in a single latent scores below 1, however well it is encoded.
"""

from typing import NamedTuple

import numpy as np

from pipeline.evals.scores import examples


class Scores(NamedTuple):
    """The figures of this metric."""

    explicitness: float  # area under the ROC curve, 0.5 (chance) to 1


def scores(codes: np.ndarray, factors: np.ndarray, *, seed: int = 0) -> Scores:
    """Returns the mean area under the ROC curve, over each factor's values and then the factors.

    Logistic regression separates each value from all others, given all latents, standardised. It is
    scored on held-out examples. Values that occur in only one of the two parts are left out.

    Args:
        codes: [N, D] posterior means, in random order.
        factors: [N, F] class indices.
        seed: not used.
    """
    import threadpoolctl
    from sklearn import linear_model, metrics  # slow to import: no training start needs it

    del seed
    part = examples.split(codes, factors)
    centre, scale = part.train_codes.mean(axis=0), part.train_codes.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    train, test = (part.train_codes - centre) / scale, (part.test_codes - centre) / scale
    means = []
    for target, truth in zip(part.train_factors.T, part.test_factors.T, strict=True):
        areas = []
        for value in np.intersect1d(target, truth):
            if (truth == value).all():
                continue
            # With so few columns, matrix products take six times as long on several threads.
            with threadpoolctl.threadpool_limits(1):
                learner = linear_model.LogisticRegression().fit(train, target == value)
            areas.append(metrics.roc_auc_score(truth == value, learner.decision_function(test)))
        means.append(np.mean(areas))
    return Scores(float(np.mean(means)))
