"""Which factors count, which examples train or test a learner, and which share a factor."""

from typing import NamedTuple

import numpy as np

from pipeline.evals.scores import protocols


class Split(NamedTuple):
    """The examples that train a learner, and those that test it."""

    train_codes: np.ndarray  # [N1, D]
    train_factors: np.ndarray  # [N1, F]
    test_codes: np.ndarray  # [N2, D]
    test_factors: np.ndarray  # [N2, F]


class Sample(NamedTuple):
    """The encoded examples of a protocol, which all metrics are computed from."""

    protocol: str
    codes: np.ndarray  # [N, D], posterior means of the examples whose statistics are taken
    factors: np.ndarray  # [N, F], their class indices
    split: Split  # for learners
    pool_codes: np.ndarray  # [P, D], of the examples that groups are drawn from
    pool_factors: np.ndarray  # [P, F]


def quick(codes: np.ndarray, factors: np.ndarray) -> Sample:
    """Returns the sample of the quick protocol: the same examples serve for everything.

    Two thirds train the learners, and one tests them.

    Args:
        codes: [N, D], in random order.
        factors: [N, F] class indices.
    """
    parts = _split(codes, factors, 2 * len(codes) // 3)
    return Sample(protocols.QUICK, codes, factors, parts, codes, factors)


def locatello(
    codes: np.ndarray, factors: np.ndarray, pool_codes: np.ndarray, pool_factors: np.ndarray
) -> Sample:
    """Returns the sample of Locatello et al. 2019, whose metrics share their draws of images.

    disentanglement_lib starts every metric from the same seed. So statistics are taken of the
    images that also train the learners.

    Args:
        codes: [10,000 + 5,000, D], of images drawn with replacement: training, then test.
        factors: [10,000 + 5,000, F] class indices.
        pool_codes: [P, D], of the images that groups are drawn from.
        pool_factors: [P, F].
    """
    parts = _split(codes, factors, protocols.NUM_TRAIN)
    statistics = (codes[: protocols.NUM_TRAIN], factors[: protocols.NUM_TRAIN])
    return Sample(protocols.LOCATELLO, *statistics, parts, pool_codes, pool_factors)


def varying(factors: np.ndarray) -> np.ndarray:
    """Returns the columns of factors [N, F] with at least two values; the others' entropy is 0."""
    return factors[:, (factors != factors[:1]).any(axis=0)]


def sharing(
    factors: np.ndarray, columns: np.ndarray, size: int, *, random: np.random.Generator
) -> np.ndarray:
    """Draws groups of examples that share the value of one factor.

    As in the papers, an example may be drawn twice.

    Args:
        factors: [N, F] class indices.
        columns: [G], the factor that each group shares.
        size: number of examples per group.
        random: draws each group's value, uniformly among those that occur, and its examples.

    Returns:
        [G, size] rows of `factors`.
    """
    rows = np.empty((len(columns), size), np.intp)
    for column in np.unique(columns):
        groups = np.flatnonzero(columns == column)
        order = np.argsort(factors[:, column], kind="stable")
        _, first, count = np.unique(factors[order, column], return_index=True, return_counts=True)
        value = random.integers(len(first), size=len(groups))
        place = (random.random((len(groups), size)) * count[value, None]).astype(np.intp)
        rows[groups] = order[first[value, None] + place]
    return rows


def _split(codes: np.ndarray, factors: np.ndarray, first: int) -> Split:
    """Returns the first examples for training and the others for testing.

    Only factors that vary in the training part are kept: nothing can be learned about the others.
    """
    kept = factors[:, (factors[:first] != factors[:1]).any(axis=0)]
    return Split(codes[:first], kept[:first], codes[first:], kept[first:])
