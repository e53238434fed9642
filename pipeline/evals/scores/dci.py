"""Disentanglement, completeness, informativeness (Eastwood & Williams 2018, openreview By-7dz-AZ).

Gradient boosted trees predict every factor from all latents. Their importances R [D, F] say which
latent is used for which factor.

The protocol of Locatello et al. has 100 stages at a learning rate of 0.1 (`boosted_trees`). The
quick one has 10 stages at 0.3, each on a random half of the training examples. Its accuracies are
lower, mostly for factors of many values; its importances differ less.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pipeline.evals.scores import boosted_trees, examples, protocols

NUM_STAGES = 10  # of the quick protocol, as the next two
LEARNING_RATE = 0.3
SUBSAMPLE = 0.5


class Scores(NamedTuple):
    """The figures of this metric, each 0 to 1."""

    dci_disentanglement: float  # whether a latent serves one factor
    dci_completeness: float  # whether a factor is served by one latent
    dci_informativeness: float  # accuracy on held-out examples, mean over factors


def scores(
    sample: examples.Sample, *, seed: int = 0, told: Callable[[float], None] = lambda share: None
) -> Scores:
    """Returns the three scores.

    Args:
        sample: the encoded examples.
        seed: of the learners.
        told: is called with the share of the work that is done, 0 to 1.
    """
    part = sample.split
    factors = list(zip(part.train_factors.T, part.test_factors.T, strict=True))
    total = sum(len(np.unique(target)) for target, _ in factors) * boosted_trees.NUM_STAGES
    done = 0

    def grown(trees: int) -> None:
        nonlocal done
        done += trees
        told(done / total)

    columns, accuracies = [], []
    for target, truth in factors:
        if sample.protocol == protocols.LOCATELLO:
            found = boosted_trees.fit(
                part.train_codes, target, part.test_codes, seed=seed, told=grown
            )
        else:
            found = _quick(part.train_codes, target, part.test_codes, seed)
        columns.append(found.importance)
        accuracies.append(np.mean(found.predicted == truth))
    importance = np.stack(columns, axis=1)
    return Scores(
        disentanglement(importance), disentanglement(importance.T), float(np.mean(accuracies))
    )


def disentanglement(importance: np.ndarray) -> float:
    """Returns Σ_d ρ_d (1 − H_F(P_d)) for importances R [D, F]; for Rᵀ it is completeness.

    P_d is row d divided by its sum, H_F is the entropy to the base F, and ρ_d is the row's share of
    the total. The paper weights all factors equally in completeness. Both are the same here,
    because every factor's importances add up to 1.
    """
    from scipy import stats

    if importance.shape[1] == 1:
        return 1.0  # a single factor: there is nothing to mix up
    weight = importance.sum(axis=1)
    used = weight > 0
    if not used.any():
        return 0.0
    entropy = stats.entropy(importance[used], base=importance.shape[1], axis=1)
    return float(np.average(1.0 - entropy, weights=weight[used]))


def _quick(
    codes: np.ndarray, target: np.ndarray, test_codes: np.ndarray, seed: int
) -> boosted_trees.Fitted:
    from sklearn import ensemble  # slow to import: no training start needs it

    learner = ensemble.GradientBoostingClassifier(
        n_estimators=NUM_STAGES,
        learning_rate=LEARNING_RATE,
        subsample=SUBSAMPLE,
        random_state=seed % 2**32,
    ).fit(codes, target)
    return boosted_trees.Fitted(learner.feature_importances_, learner.predict(test_codes))
