"""FactorVAE score (Kim & Mnih 2018, arXiv:1802.05983, section 4).

A vote comes from 64 examples that share one factor. It is the latent with the least variance over
them, relative to its variance over all examples. A majority-vote classifier predicts the factor
from that latent.
"""

from typing import NamedTuple

import numpy as np

from pipeline.evals.scores import examples

NUM_TRAIN, NUM_TEST = 10_000, 5_000  # votes, as in Locatello et al. 2019
GROUP = 64  # examples per vote
LEAST_DEVIATION = 0.05  # a latent whose standard deviation is lower is collapsed, with no vote
CHUNK = 1000  # votes at a time


class Scores(NamedTuple):
    """The figures of this metric."""

    factor_vae_score: float  # accuracy, 0 to 1; 1/F is chance


def scores(sample: examples.Sample, *, seed: int = 0) -> Scores:
    """Returns the classifier's accuracy on other votes than its own; 0 if all latents collapsed.

    Args:
        sample: the encoded examples.
        seed: of the votes.
    """
    factors = examples.varying(sample.pool_factors)
    variance = sample.codes.var(axis=0, ddof=1, dtype=np.float64)
    active = np.sqrt(variance) >= LEAST_DEVIATION
    if not active.any():
        return Scores(0.0)
    random = np.random.default_rng(seed)
    columns = random.integers(factors.shape[1], size=NUM_TRAIN + NUM_TEST)
    rows = examples.sharing(factors, columns, GROUP, random=random)
    latents = votes(sample.pool_codes[:, active], variance[active], rows)
    counts = np.zeros((active.sum(), factors.shape[1]), np.int64)
    np.add.at(counts, (latents[:NUM_TRAIN], columns[:NUM_TRAIN]), 1)
    guess = counts.argmax(axis=1)[latents[NUM_TRAIN:]]
    return Scores(float(np.mean(guess == columns[NUM_TRAIN:])))


def votes(codes: np.ndarray, variance: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns the latent of each vote, [G], for codes [N, D], variances [D] and rows [G, size]."""
    parts = (rows[first : first + CHUNK] for first in range(0, len(rows), CHUNK))
    return np.concatenate(
        [
            (codes[part].var(axis=1, ddof=1, dtype=np.float64) / variance).argmin(-1)
            for part in parts
        ]
    )
