"""Which factors count, which examples train or test a learner, and which share a factor."""

from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """The examples that train a learner, and those that test it."""

    train_codes: np.ndarray  # [N1, D]
    train_factors: np.ndarray  # [N1, F]
    test_codes: np.ndarray  # [N2, D]
    test_factors: np.ndarray  # [N2, F]


def varying(factors: np.ndarray) -> np.ndarray:
    """Returns the columns of factors [N, F] with at least two values; the others' entropy is 0."""
    return factors[:, (factors != factors[:1]).any(axis=0)]


def split(codes: np.ndarray, factors: np.ndarray) -> Split:
    """Returns two thirds for training and one for testing, as Locatello et al. 2019 (10,000/5,000).

    Only factors that vary in the training part are kept: nothing can be learned about the others.
    """
    first = 2 * len(codes) // 3
    kept = factors[:, (factors[:first] != factors[:1]).any(axis=0)]
    return Split(codes[:first], kept[:first], codes[first:], kept[first:])


def sharing(
    factors: np.ndarray, columns: np.ndarray, size: int, *, random: np.random.Generator
) -> np.ndarray:
    """Draws groups of examples that share the value of one factor.

    The papers draw from all images. Here the encoded examples stand for them. As in the papers, an
    example may be drawn twice.

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
