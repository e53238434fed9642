"""Explicitness (Ridgeway & Mozer 2018, arXiv:1802.05312, section 3): a linear model reads factors.

The two protocols have different learners, and different figures:

- Locatello et al.: one multinomial regression a factor. Its probability of a value also depends on
  the other values. So it can rank a value in the middle of a latent's range.
- quick: one regression a value, against all others, as in the paper. It cannot separate the middle
  of a range from both sides at once. So a factor of many values in a single latent scores low,
  however well it is encoded.

disentanglement_lib calls scikit-learn's `LogisticRegression()`, which is multinomial since version
0.22 (2019). Before, it was one regression a value whose probabilities were divided by their sum.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pipeline.evals.scores import examples, protocols


class Scores(NamedTuple):
    """The figures of this metric."""

    explicitness: float  # area under the ROC curve, 0.5 (chance) to 1


def scores(sample: examples.Sample, *, seed: int = 0) -> Scores:
    """Returns the mean area under the ROC curve, over each factor's values and then the factors.

    Logistic regression ranks the held-out examples, given all latents, standardised. Values that
    occur in only one of the two parts are left out.

    Args:
        sample: the encoded examples.
        seed: not used.
    """
    import threadpoolctl
    from sklearn import exceptions, metrics  # slow to import: no training start needs it

    del seed
    part = sample.split
    centre, scale = part.train_codes.mean(axis=0), part.train_codes.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    train, test = (part.train_codes - centre) / scale, (part.test_codes - centre) / scale
    rank = _multinomial if sample.protocol == protocols.LOCATELLO else _one_against_rest
    means = []
    for target, truth in zip(part.train_factors.T, part.test_factors.T, strict=True):
        # With so few columns, matrix products take six times as long on several threads.
        with threadpoolctl.threadpool_limits(1), warnings.catch_warnings():
            # The library stops after the same 100 iterations, converged or not.
            warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
            ranked = rank(train, target, test)
            areas = [
                metrics.roc_auc_score(truth == value, ranked(value))
                for value in np.intersect1d(target, truth)
                if not (truth == value).all()
            ]
        means.append(np.mean(areas))
    return Scores(float(np.mean(means)))


def _multinomial(
    train: np.ndarray, target: np.ndarray, test: np.ndarray
) -> Callable[[int], np.ndarray]:
    """Returns the function value → its probabilities, [M], for test codes [M, D]."""
    from sklearn import linear_model

    learner = linear_model.LogisticRegression().fit(train, target)
    chances = learner.predict_proba(test)
    return lambda value: chances[:, np.searchsorted(learner.classes_, value)]


def _one_against_rest(
    train: np.ndarray, target: np.ndarray, test: np.ndarray
) -> Callable[[int], np.ndarray]:
    """Returns the function value → its log odds against all others, [M]."""
    from sklearn import linear_model

    def ranked(value: int) -> np.ndarray:
        return linear_model.LogisticRegression().fit(train, target == value).decision_function(test)

    return ranked
