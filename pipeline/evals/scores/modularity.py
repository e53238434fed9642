"""Modularity (Ridgeway & Mozer 2018, arXiv:1802.05312, section 3): one factor per latent."""

from typing import NamedTuple

import numpy as np

from pipeline.evals.scores import examples, mutual_information


class Scores(NamedTuple):
    """The figures of this metric."""

    modularity: float  # 0 to 1


def scores(sample: examples.Sample, *, seed: int = 0) -> Scores:
    """Returns the mean over latents; `scores.mutual_information` measures the information.

    Args:
        sample: the encoded examples.
        seed: not used.
    """
    del seed
    factors = examples.varying(sample.factors)
    return Scores(of_information(mutual_information.between(sample.codes, factors)))


def of_information(information: np.ndarray) -> float:
    """Returns the mean over latents of 1 − Σ_(k ≠ best) m_dk² / (m_best² (F − 1)).

    A latent without any information scores 0, as in disentanglement_lib. A latent of pure noise
    seems to have some information by chance and scores between 0 and 1. So compare this score with
    the others.

    Args:
        information: m, [D, F] nats.
    """
    square = np.square(information)
    best = square.max(axis=1)
    rest = square.sum(axis=1) - best
    told = best > 0
    spread = rest / np.where(told, best * max(1, square.shape[1] - 1), 1.0)
    return float(np.where(told, 1.0 - spread, 0.0).mean())
