"""Unsupervised disentanglement ranking, UDR (Duan et al. 2020, arXiv:1905.12614, section 4).

It needs no factors. If models that differ only in their seed disentangle, they find the same
latents, up to order and sign. A model's score is the median of its likeness to the others.

Difference from disentanglement_lib: we weight the two directions of a pair by their numbers of
informative latents (the paper's equation 3), not equally.
"""

from collections.abc import Callable, Sequence

import numpy as np

INFORMATIVE_NATS = 0.01  # a latent with a lower mean KL is left out
PENALTY = 0.1  # α of the lasso


def lasso(codes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns |coefficients|, [D1, D2], of the lasso that predicts others [N, D2] from [N, D1]."""
    from sklearn import linear_model  # slow to import: no training start needs it

    coefficients = linear_model.Lasso(alpha=PENALTY).fit(codes, others).coef_
    return np.abs(coefficients).reshape(others.shape[1], codes.shape[1]).T


def spearman(codes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns |rank correlations|, [D1, D2], of codes [N, D1] and others [N, D2]."""
    from scipy import stats

    ranks = stats.rankdata(np.concatenate([codes, others], axis=1), axis=0)
    return np.abs(np.corrcoef(ranks.T)[: codes.shape[1], codes.shape[1] :])


def scores(
    means: Sequence[np.ndarray],
    kls: Sequence[np.ndarray],
    *,
    relation: Callable[[np.ndarray, np.ndarray], np.ndarray] = lasso,
) -> np.ndarray:
    """Returns the score of each of M models, [M] in 0 to 1.

    Args:
        means: M arrays [N, D_m], posterior means of the same N examples.
        kls: M arrays [D_m], the mean KL of each latent in nats.
        relation: `lasso` (the paper's UDR_L) or `spearman` (UDR_S).
    """
    informative = [
        _standardized(m[:, kl > INFORMATIVE_NATS]) for m, kl in zip(means, kls, strict=True)
    ]
    alike = np.array(
        [
            [np.nan if one is other else likeness(one, other, relation) for other in informative]
            for one in informative
        ]
    )
    return np.nanmedian(alike, axis=1)


def likeness(one: np.ndarray, other: np.ndarray, relation: Callable) -> float:
    """Returns UDR_ij for the informative latents of two models, [N, D1] and [N, D2].

    It is 1/(D1 + D2) · (Σ_b r_b² / Σ_a R_ab + Σ_a r_a² / Σ_b R_ab); r is the greatest entry of a
    row or column. It is 0 if a model has no informative latent.
    """
    if not (one.shape[1] and other.shape[1]):
        return 0.0
    matrix = relation(one, other)
    total = 0.0
    for strengths in (matrix.T, matrix):  # each row holds one latent's relations to the other model
        sums = strengths.sum(axis=1)
        total += (np.square(strengths.max(axis=1)) / np.where(sums > 0, sums, 1.0)).sum()
    return float(total / sum(matrix.shape))


def _standardized(codes: np.ndarray) -> np.ndarray:
    return (codes - codes.mean(axis=0)) / codes.std(axis=0)
