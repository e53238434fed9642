"""Interventional robustness score, IRS (Suter et al. 2019, arXiv:1811.00007, section 4).

A latent is robust if it stays the same while all factors except its own change. The protocol of
Locatello et al. cuts factors into 20 bins first, as disentanglement_lib does. So of a factor that
has more than 20 values, two or three count as one.
"""

from typing import NamedTuple

import numpy as np

from pipeline.evals.scores import examples, mutual_information, protocols

QUANTILE = 0.99  # of the deviations, as Locatello et al. 2019; the paper uses the maximum


class Scores(NamedTuple):
    """The figures of this metric."""

    irs: float  # 0 to 1


def scores(sample: examples.Sample, *, seed: int = 0) -> Scores:
    """Returns the mean over latents of the best factor's 1 − deviation, weighted by their ranges.

    The deviation of latent d for factor k is the 0.99 quantile of |z_d − E[z_d | v_k]|, averaged
    over that factor's values. It is divided by the greatest |z_d − E[z_d]| of all examples.

    Args:
        sample: the encoded examples; latents that never change are dropped.
        seed: not used.
    """
    del seed
    factors = examples.varying(sample.factors)
    if sample.protocol == protocols.LOCATELLO:
        factors = mutual_information.discretized(factors)
    codes = sample.codes.astype(np.float64)
    greatest = np.abs(codes - codes.mean(axis=0)).max(axis=0)
    codes, greatest = codes[:, np.ptp(codes, axis=0) > 0], greatest[np.ptp(codes, axis=0) > 0]
    if not codes.shape[1]:
        return Scores(0.0)
    deviation = np.stack([deviations(codes, factor) for factor in factors.T], axis=1)
    robust = (1.0 - deviation / greatest[:, None]).max(axis=1)
    return Scores(float(np.average(robust, weights=greatest)))


def deviations(codes: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Returns each latent's mean deviation, [D], for codes [N, D] and one factor [N]."""
    groups = (codes[factor == value] for value in np.unique(factor))
    return np.mean(
        [np.quantile(np.abs(group - group.mean(axis=0)), QUANTILE, axis=0) for group in groups],
        axis=0,
    )
