"""Mutual information between every latent and every factor, as Locatello et al. 2019 measure it.

arXiv:1811.12359, appendix C: a latent's posterior means are cut into 20 bins of equal width.
"""

import numpy as np

NUM_BINS = 20


def discretized(codes: np.ndarray) -> np.ndarray:
    """Returns the bin of every code, [N, D] in 1 … 20.

    The bins of a latent divide the range from its least to its greatest code.
    """
    edges = (np.histogram(column, NUM_BINS)[1][:-1] for column in codes.T)
    bins = [np.digitize(column, edge) for column, edge in zip(codes.T, edges, strict=True)]
    return np.stack(bins, axis=1)


def between(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Returns I(z_d; v_k) in nats, [D, F], for codes [N, D] and class indices [N, F]."""
    from sklearn import metrics  # slow to import: no training start needs it

    return np.array(
        [
            [metrics.mutual_info_score(factor, latent) for factor in factors.T]
            for latent in discretized(codes).T
        ]
    )


def entropies(factors: np.ndarray) -> np.ndarray:
    """Returns H(v_k) in nats, [F], for class indices [N, F]."""
    from scipy import stats

    return np.array([stats.entropy(np.unique(v, return_counts=True)[1]) for v in factors.T])
