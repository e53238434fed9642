"""Mutual information gap (MIG) in the convention of Locatello et al. 2019 (arXiv:1811.12359).

Posterior means are cut into 20 bins. Every factor counts, including unordered ones such as shape.
"""

from typing import NamedTuple

import numpy as np

from pipeline.evals.scores import examples, mutual_information


class Scores(NamedTuple):
    """The figures of this metric."""

    mig: float  # 0 to 1


def scores(sample: examples.Sample, *, seed: int = 0) -> Scores:
    """Returns the mean over factors of (I(z_1; v) − I(z_2; v))/H(v).

    z_1 and z_2 are the two latents with the most information about the factor v.

    Args:
        sample: the encoded examples.
        seed: not used.
    """
    del seed
    factors = examples.varying(sample.factors)
    information = mutual_information.between(sample.codes, factors)
    return Scores(float(gaps(information / mutual_information.entropies(factors)).mean()))


def gaps(importance: np.ndarray) -> np.ndarray:
    """Returns the largest minus the second largest entry of each column, [F], for [D, F].

    The second largest entry of a single latent counts as 0.
    """
    second, first = np.sort(np.pad(importance, ((1, 0), (0, 0))), axis=0)[-2:]
    return first - second
