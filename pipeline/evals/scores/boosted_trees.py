"""Gradient boosted trees with the settings of Locatello et al. 2019 (arXiv:1811.12359).

They are those of scikit-learn's `GradientBoostingClassifier()`: 100 stages at a learning rate of
0.1, trees of depth 3 on all examples, and the log loss (Friedman 2001, algorithm 6,
doi:10.1214/aos/1013203451).

Difference from scikit-learn: it sorts the codes again in every node of every tree. Here they are
sorted once and every node keeps the order, which takes a seventh of the time. Both choose the split
with the lowest squared error. Small nodes have several that are equally good. Then scikit-learn's
seed decides between latents, as ours does, and rounding decides between the splits of one latent.
"""

import os
from collections.abc import Callable
from concurrent import futures
from typing import NamedTuple

import numpy as np

NUM_STAGES = 100
LEARNING_RATE = 0.1
DEPTH = 3
LEAST_STEP = np.float32(1e-7)  # codes that differ by less are never separated, as in scikit-learn
MOST_THREADS = 8
Draws = np.random.RandomState  # not Generator: its stream is frozen (NEP 19)


class Fitted(NamedTuple):
    """What the trees of one target say."""

    importance: np.ndarray  # [D] float64, sums to 1 (0 if no tree has a split)
    predicted: np.ndarray  # [M], the class of each test example


class Tree(NamedTuple):
    """A node that splits."""

    latent: int
    threshold: np.float64  # codes up to it go left; a Python float would be rounded to float32
    gain: float  # by how much the split lowers the sum of squared errors
    sides: list["Node"]  # left and right


Node = Tree | np.ndarray  # a leaf is the rows of its training examples


def fit(
    codes: np.ndarray,
    target: np.ndarray,
    test_codes: np.ndarray,
    *,
    seed: int = 0,
    told: Callable[[int], None] = lambda trees: None,
) -> Fitted:
    """Fits the trees and predicts the classes of the test examples.

    Threads grow the trees of a stage, one a class: NumPy releases the interpreter's lock. The
    result does not depend on their number.

    Args:
        codes: [N, D].
        target: [N], with two values or more.
        test_codes: [M, D].
        seed: draws between latents whose best splits are equally good.
        told: is called with the number of trees after each stage.
    """
    values, classes, counts = np.unique(target, return_inverse=True, return_counts=True)
    first = 1 if len(values) == 2 else 0  # two classes need one tree a stage, of the second
    truth = (classes == np.arange(first, len(values))[:, None]).astype(np.float64)  # [K, N]
    prior = counts[first:] / len(target)
    start = np.log(prior / (1.0 - prior)) if first else np.log(prior)
    scores, test_scores = (np.repeat(start[:, None], len(c), 1) for c in (codes, test_codes))
    by_latent = np.ascontiguousarray(codes.T.astype(np.float32))
    order = np.argsort(by_latent, axis=1, kind="stable")
    test = test_codes.astype(np.float32)
    shrink = LEARNING_RATE * (1.0 if first else 1.0 - 1.0 / len(values))
    # Each class has its own stream, so that threads do not change what is drawn.
    randoms = [Draws([seed % 2**32, k]) for k in range(len(truth))]
    gains: list[np.ndarray] = []

    def add_tree(k: int, residual: np.ndarray) -> np.ndarray | None:
        tree = grow(by_latent, order, residual, DEPTH, randoms[k])
        for rows, chosen in _leaves(tree, test):
            value = shrink * step(residual[rows], truth[k, rows])
            scores[k, rows] += value
            test_scores[k, chosen] += value
        return None if isinstance(tree, np.ndarray) else _gains(tree, len(by_latent))

    with futures.ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as threads:
        for _ in range(NUM_STAGES):
            residuals = truth - _probabilities(scores)
            grown = threads.map(add_tree, range(len(truth)), residuals)
            gains += [found for found in grown if found is not None]
            told(len(truth))
    total = np.sum(gains, axis=0) if gains else np.zeros(len(by_latent))
    guess = (test_scores[0] >= 0).astype(int) if first else test_scores.argmax(axis=0)
    return Fitted(total / (total.sum() or 1.0), values[guess])


def step(residual: np.ndarray, truth: np.ndarray) -> float:
    """Returns the Newton step of a leaf: Σ r / Σ p(1 − p), for residuals r = truth − p."""
    chance = truth - residual
    curvature = float((chance * (1.0 - chance)).sum())
    return float(residual.sum()) / curvature if abs(curvature) > 1e-150 else 0.0


def grow(
    codes: np.ndarray, order: np.ndarray, residual: np.ndarray, depth: int, random: Draws
) -> Node:
    """Returns the tree of some rows.

    Args:
        codes: [D, N].
        order: [D, n], the rows in the order of each latent.
        residual: [N], what the tree approximates.
        depth: how many levels may split.
        random: draws between equally good latents.
    """
    rows = order[0]
    if not depth or len(rows) < 2 or residual[rows].var() <= np.finfo(np.float64).eps:
        return rows
    found = best_split(codes, order, residual, random)
    if found is None:
        return rows
    latent, threshold, gain = found
    left = codes[latent] <= threshold
    if depth == 1:
        below = left[rows]
        return Tree(latent, threshold, gain, [rows[below], rows[~below]])
    inside = left[order]  # it keeps the order, so nothing is sorted again
    parts = (order[side].reshape(len(order), -1) for side in (inside, ~inside))
    sides = [grow(codes, part, residual, depth - 1, random) for part in parts]
    return Tree(latent, threshold, gain, sides)


def best_split(
    codes: np.ndarray, order: np.ndarray, residual: np.ndarray, random: Draws
) -> tuple[int, np.float64, float] | None:
    """Returns the latent, the threshold and the gain of the best split, or None if none helps.

    The gain of a split into n_l and n_r of n rows is (n s_l − n_l s)² / (n n_l n_r), where s_l and
    s are the sums of the residuals on the left and of all.

    Args:
        codes: [D, N].
        order: [D, n], rows in the order of each latent.
        residual: [N].
        random: draws between equally good latents.
    """
    num = order.shape[1]
    left = np.arange(1.0, num)
    sums = residual[order].cumsum(axis=1)
    gain = sums[:, :-1] - left * (sums[0, -1] / num)
    np.square(gain, out=gain)
    gain *= num / (left * (num - left))
    shuffled = random.permutation(len(gain))
    while True:
        place = gain.argmax(axis=1)
        best = gain[np.arange(len(gain)), place]
        latent = shuffled[best[shuffled].argmax()]
        if best[latent] <= 0:
            return None
        at = place[latent]
        low, high = codes[latent, order[latent, at : at + 2]]
        if high > low + LEAST_STEP:
            return latent, (np.float64(low) + np.float64(high)) / 2, float(best[latent])
        # Equal codes are rare. Only then are all splits between equal codes ruled out.
        ascending = codes[latent, order[latent]]
        gain[latent][ascending[1:] <= ascending[:-1] + LEAST_STEP] = -1.0


def _probabilities(scores: np.ndarray) -> np.ndarray:
    """Returns the probabilities of the classes, [K, N]: of the second class alone if K is 1."""
    if len(scores) == 1:
        return 1.0 / (1.0 + np.exp(-scores))
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)


def _leaves(tree: Node, test: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the training rows of each leaf, and which of the test codes [M, D] fall into it."""
    found, open_nodes = [], [(tree, np.arange(len(test)))]
    while open_nodes:
        node, rows = open_nodes.pop()
        if isinstance(node, np.ndarray):
            found.append((node, rows))
        else:
            left = test[rows, node.latent] <= node.threshold
            open_nodes += zip(node.sides, (rows[left], rows[~left]), strict=True)
    return found


def _gains(tree: Node, num_latents: int) -> np.ndarray:
    """Returns the sum of the gains of each latent's splits, [D]."""
    found = np.zeros(num_latents)
    if isinstance(tree, Tree):
        found[tree.latent] += tree.gain
        for side in tree.sides:
            found += _gains(side, num_latents)
    return found
