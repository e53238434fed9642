"""UDR on latents whose likeness is known exactly, and against a second implementation."""

import itertools

import numpy as np
import pytest

from pipeline.evals.scores import udr

# A full design: each of four columns is uncorrelated with all functions of the others.
GRID = np.array(list(itertools.product(np.linspace(-1.5, 1.5, 5), repeat=4)))
ACTIVE = np.full(2, 1.0)
# Of a copy, the lasso finds the coefficient 1 less the penalty, and ranks find 1.
OF_COPY = {udr.lasso: 1.0 - udr.PENALTY, udr.spearman: 1.0}
RELATIONS = pytest.mark.parametrize("relation", [udr.lasso, udr.spearman])


@RELATIONS
def test_models_that_differ_in_order_sign_and_scale_are_alike(relation):
    one, other = GRID[:, :2], -3.0 * GRID[:, [1, 0]]
    found = udr.scores([one, other], [ACTIVE, ACTIVE], relation=relation)
    assert found == pytest.approx([OF_COPY[relation]] * 2, abs=1e-6)


@RELATIONS
def test_models_with_nothing_in_common_have_no_likeness(relation):
    found = udr.scores([GRID[:, :2], GRID[:, 2:]], [ACTIVE, ACTIVE], relation=relation)
    assert found == pytest.approx([0.0, 0.0], abs=1e-12)
    random = np.random.default_rng(0).standard_normal((2, 1000, 5))
    found = udr.scores(list(random), [np.ones(5)] * 2, relation=relation)
    assert found.max() < 0.06


@RELATIONS
def test_latents_of_a_hundredth_of_a_nat_are_left_out(relation):
    noise = np.random.default_rng(1).standard_normal((len(GRID), 3))
    plain = udr.scores([GRID[:, :2], GRID[:, 1:3]], [ACTIVE, ACTIVE], relation=relation)
    means = [np.hstack([noise, GRID[:, :2]]), np.hstack([GRID[:, 1:3], noise])]
    kls = [np.array([0.01, 0.0, 0.005, 0.02, 1.0]), np.array([1.0, 0.0101, 0.01, 0.0, 0.009])]
    np.testing.assert_allclose(udr.scores(means, kls, relation=relation), plain, atol=1e-12)
    # One latent of two is shared: its row and its column count, of four in all.
    assert plain == pytest.approx([OF_COPY[relation] * 2 / 4] * 2, abs=1e-6)


def test_a_score_is_the_median_over_pairs_of_the_papers_equation():
    random = np.random.default_rng(2)
    shared = random.standard_normal((300, 3))
    means = [shared @ random.standard_normal((3, d)) for d in (2, 3, 4, 3)]
    kls = [random.uniform(0.0, 0.04, mean.shape[1]) for mean in means]
    kls[0][:] = 1.0
    ranks = [np.argsort(np.argsort(mean, axis=0), axis=0).astype(float) for mean in means]
    pairs = np.full((4, 4), np.nan)
    for i, j in itertools.permutations(range(4), 2):
        a, b = np.flatnonzero(kls[i] > 0.01), np.flatnonzero(kls[j] > 0.01)
        likeness = {(u, v): abs(np.corrcoef(ranks[i][:, u], ranks[j][:, v])[0, 1])
                    for u in a for v in b}  # fmt: skip
        total = 0.0
        for v in b:
            column = [likeness[u, v] for u in a]
            total += max(column) ** 2 / sum(column)
        for u in a:
            row = [likeness[u, v] for v in b]
            total += max(row) ** 2 / sum(row)
        pairs[i, j] = total / (len(a) + len(b))
    found = udr.scores(means, kls, relation=udr.spearman)
    assert found == pytest.approx([np.median(np.delete(pairs[i], i)) for i in range(4)])
