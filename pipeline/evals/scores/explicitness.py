"""Explicitness (Ridgeway & Mozer 2018, arXiv:1802.05312, section 3): factors can be read off.

By straight lines: a value in the middle of a latent's range can't be told from both sides at once,
so that a factor of many values in one latent stays below 1 however well it is encoded.
"""

from typing import NamedTuple

import numpy as np

from pipeline.evals.scores import examples


class Scores(NamedTuple):
    """What this metric gives."""

    explicitness: float  # area under the ROC curve, 0.5 (chance) to 1


def scores(codes: np.ndarray, factors: np.ndarray, *, seed: int = 0) -> Scores:
    """Returns the mean area under the ROC curve, over each factor's values and then the factors.

    Logistic regression tells each value from all others, from all latents together, standardised;
    it is scored on held-out examples. Values that only one of the two parts has are left out.

    Args:
        codes: [N, D] posterior means, in random order.
        factors: [N, F] class indices.
        seed: without use here.
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
            # Products of so few columns take six times as long on several threads.
            with threadpoolctl.threadpool_limits(1):
                learner = linear_model.LogisticRegression().fit(train, target == value)
            areas.append(metrics.roc_auc_score(truth == value, learner.decision_function(test)))
        means.append(np.mean(areas))
    return Scores(float(np.mean(means)))
