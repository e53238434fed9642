"""The metrics of disentanglement equal known values, and the papers' formulas in plain loops."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from pipeline.evals.scores import (
    beta_vae_score,
    dci,
    examples,
    explicitness,
    factor_vae_score,
    irs,
    mig,
    mig_chen,
    modularity,
    mutual_information,
    sap,
    udr,
)

ALL = (mig, dci, sap, factor_vae_score, beta_vae_score, modularity, explicitness, irs)
SIZES = (1, 3, 4, 5)


@pytest.fixture(autouse=True, scope="module")
def fewer_votes():
    with pytest.MonkeyPatch.context() as patch:
        for module in (factor_vae_score, beta_vae_score):
            patch.setattr(module, "NUM_TRAIN", 600)
            patch.setattr(module, "NUM_TEST", 300)
        yield


def grid(repeats=25):
    """Returns all combinations of three factors and a constant one, repeated, in random order."""
    rows = np.array(list(itertools.product(*map(range, SIZES))) * repeats)
    return np.random.default_rng(0).permutation(rows).astype(np.int32)


def perfect(factors, noise=0.01):
    """Returns one latent for each factor that varies; it depends on nothing else."""
    clean = factors[:, 1:] - factors[:, 1:].mean(axis=0)
    return clean + noise * np.random.default_rng(1).standard_normal(clean.shape)


def rotated(factors):
    turn = stats.ortho_group(3, seed=4).rvs()
    return stats.zscore(perfect(factors)) @ turn


def noise(factors):
    return np.random.default_rng(2).standard_normal((len(factors), 3))


def merged(module, codes, factors):
    return module.scores(examples.quick(codes, factors), seed=0)._asdict()


def all_scores(codes, factors):
    return {n: v for module in ALL for n, v in merged(module, codes, factors).items()}


@pytest.fixture(scope="module")
def found():
    factors = grid()
    kinds = {"perfect": perfect, "rotated": rotated, "noise": noise}
    return {kind: all_scores(make(factors), factors) for kind, make in kinds.items()}


def test_perfect_codes_have_the_best_scores(found):
    scores = dict(found["perfect"])
    # A linear classifier cannot cut the middle out of a line: it separates the j-th of K values
    # from j − 1 others or from K − j.
    told = [max(j, size - 1 - j) / (size - 1) for size in SIZES[1:] for j in range(size)]
    parts = np.split(np.array(told), np.cumsum(SIZES[1:])[:-1])
    expected = np.mean([part.mean() for part in parts])
    assert scores.pop("explicitness") == pytest.approx(expected, abs=0.02)
    assert scores.pop("sap") > 0.3
    assert scores.pop("irs") == pytest.approx(1.0, abs=0.05)
    for name, score in scores.items():
        assert score == pytest.approx(1.0, abs=0.01), name


def test_rotated_codes_tell_all_factors_and_separate_none(found):
    scores = found["rotated"]
    assert scores["dci_informativeness"] > 0.9 and scores["explicitness"] > 0.8
    for name in ("mig", "dci_disentanglement", "dci_completeness", "modularity", "sap", "irs"):
        assert scores[name] < 0.75 * found["perfect"][name], name


def test_noise_tells_nothing(found):
    scores = found["noise"]
    for name in ("mig", "sap"):
        assert scores[name] < 0.03, name
    chance = np.mean([1 / size for size in SIZES[1:]])
    assert scores["dci_informativeness"] == pytest.approx(chance, abs=0.05)
    assert scores["dci_disentanglement"] < 0.1 and scores["dci_completeness"] < 0.1
    assert scores["explicitness"] == pytest.approx(0.5, abs=0.03)
    assert scores["beta_vae_score"] == pytest.approx(1 / 3, abs=0.1)
    assert scores["factor_vae_score"] == pytest.approx(1 / 3, abs=0.1)


def test_scores_depend_on_neither_order_nor_sign_nor_a_constant_factor(found):
    factors = grid()
    codes = -perfect(factors)[:, [2, 0, 1]]
    for module in (mig, sap, modularity, irs):
        for name, score in merged(module, codes, factors[:, 1:]).items():
            assert score == pytest.approx(found["perfect"][name], abs=1e-6), name


def test_one_seed_gives_the_same_scores_again():
    factors = grid(6)
    codes = rotated(factors)
    for module in (dci, factor_vae_score, beta_vae_score):
        assert merged(module, codes, factors) == merged(module, codes, factors)


def literal_information(latent, factor):
    """Returns I = Σ p(b, v) log(p(b, v)/(p(b) p(v))) in nats, with 20 bins b of equal width."""
    low, high = latent.min(), latent.max()
    bins = [min(int((z - low) / (high - low) * 20), 19) for z in latent]
    total = 0.0
    for b, v in itertools.product(set(bins), set(factor)):
        joint = np.mean([(x == b) and (y == v) for x, y in zip(bins, factor, strict=True)])
        alone = np.mean([x == b for x in bins]) * np.mean(factor == v)
        total += joint * math.log(joint / alone) if joint else 0.0
    return total


def small():
    """Returns latents that mix factors, few enough for plain loops."""
    factors = np.random.default_rng(3).permutation(grid(2))[:90]
    return rotated(factors) + 0.3 * perfect(factors), factors


def literal_matrix(codes, factors):
    return np.array([[literal_information(z, v) for v in factors.T] for z in codes.T])


def test_information_mig_and_modularity_are_the_papers_formulas():
    codes, factors = small()
    told = literal_matrix(codes, factors[:, 1:])
    np.testing.assert_allclose(mutual_information.between(codes, factors[:, 1:]), told, atol=1e-9)
    gaps, modular = [], []
    for k in range(3):
        share = np.bincount(factors[:, k + 1]) / len(factors)
        second, first = sorted(told[:, k])[-2:]
        gaps.append((first - second) / -sum(p * math.log(p) for p in share if p))
    assert mig.scores(examples.quick(codes, factors)).mig == pytest.approx(np.mean(gaps), abs=1e-9)
    for row in told:
        best = max(range(3), key=lambda k: row[k])
        delta = sum(row[k] ** 2 for k in range(3) if k != best) / (row[best] ** 2 * 2)
        modular.append(1 - delta)
    found = modularity.scores(examples.quick(codes, factors)).modularity
    assert found == pytest.approx(np.mean(modular), abs=1e-9)


def test_the_gap_of_two_bits_by_hand():
    factors = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 50)
    codes = factors.astype(float)
    np.testing.assert_allclose(mutual_information.between(codes, factors), math.log(2) * np.eye(2))
    assert mig.scores(examples.quick(codes, factors)).mig == pytest.approx(1.0)
    both = codes[:, [0, 0]]  # two equal latents, so one factor has no gap; no latent has the other
    assert mig.scores(examples.quick(both, factors)).mig == pytest.approx(0.0)
    assert mig.scores(examples.quick(codes[:, :1], factors)).mig == pytest.approx(0.5)
    told_of_one = examples.quick(codes @ np.diag([1.0, 0.0]), factors)
    assert modularity.scores(told_of_one).modularity == 0.5


def test_gaps_in_chens_convention_are_the_papers_formula():
    mean, factors = small()
    random = np.random.default_rng(5)
    log_variance = random.uniform(-3, 0, mean.shape)
    told = np.zeros((3, 4))
    for d, k in np.ndindex(told.shape):
        variance = np.exp(log_variance[:, d])
        for n, value in enumerate(factors[:, k]):
            density = stats.norm.pdf(mean[n, d], mean[:, d], np.sqrt(variance))
            told[d, k] += np.log(density[factors[:, k] == value].mean() / density.mean())
    told /= len(mean)
    found = mig_chen.information(mean, mean, log_variance, factors)
    np.testing.assert_allclose(found, told, atol=1e-5)
    gaps = []
    for k in (1, 2, 3):
        share = np.bincount(factors[:, k]) / len(factors)
        second, first = sorted(np.maximum(told[:, k], 0))[-2:]
        gaps.append((first - second) / stats.entropy(share))
    scores = mig_chen.scores(mean, log_variance, factors, excluded=[1])
    assert scores.mig_chen_means_all_factors == pytest.approx(np.mean(gaps), abs=1e-5)
    assert scores.mig_chen_means == pytest.approx(np.mean(gaps[1:]), abs=1e-5)


def test_chens_gap_is_one_for_narrow_posteriors_and_none_for_the_prior():
    factors = grid(6)
    mean = np.concatenate([perfect(factors, noise=0.0), np.zeros((len(factors), 1))], axis=1)
    log_variance = np.full(mean.shape, -8.0)
    log_variance[:, 3] = 0.0
    scores = mig_chen.scores(mean, log_variance, factors)
    np.testing.assert_allclose(scores, 1.0, atol=1e-4)
    nothing = mig_chen.scores(0.0 * mean, 0.0 * mean, factors)
    np.testing.assert_allclose(nothing, 0.0, atol=1e-5)


def test_disentanglement_and_completeness_by_hand():
    identity = np.eye(3)
    assert dci.disentanglement(identity) == dci.disentanglement(identity.T) == pytest.approx(1.0)
    assert dci.disentanglement(np.ones((4, 3))) == pytest.approx(0.0)
    assert dci.disentanglement(np.zeros((4, 3))) == 0.0
    # Row 0 is whole (weight 3/4); row 1 is split evenly between two of three factors.
    importance = np.array([[3.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 0.0]])
    expected = 0.75 + 0.25 * (1 - math.log(2) / math.log(3))
    assert dci.disentanglement(importance) == pytest.approx(expected)


def test_sap_is_the_gap_in_accuracy_of_single_latents():
    factors = np.random.default_rng(6).integers(0, 2, (600, 1))
    flipped = np.where(np.arange(600) % 10 < 2, 1 - factors[:, 0], factors[:, 0])
    codes = np.stack([factors[:, 0], flipped], axis=1).astype(float)
    np.testing.assert_allclose(
        sap.accuracies(examples.quick(codes, factors).split)[:, 0], [1.0, 0.8]
    )
    assert sap.scores(examples.quick(codes, factors)).sap == pytest.approx(0.2)


def test_groups_share_their_factor_and_draw_all_values_alike():
    factors = grid(3)
    factors = factors[(factors[:, 1] > 0) | (np.arange(len(factors)) % 4 == 0)]  # value 0 is rare
    columns = np.random.default_rng(7).integers(1, 4, 3000)
    rows = examples.sharing(factors, columns, 8, random=np.random.default_rng(8))
    values = np.take_along_axis(factors[rows], columns[:, None, None], axis=2)[..., 0]
    assert (values == values[:, :1]).all()
    drawn = np.bincount(values[columns == 1, 0])
    np.testing.assert_allclose(drawn / drawn.sum(), 1 / 3, atol=0.05)
    assert len(np.unique(rows)) == len(factors)


def test_votes_and_points_are_the_papers_formulas():
    codes, factors = small()
    rows = np.random.default_rng(9).integers(0, len(codes), (20, 6))
    variance = codes.var(axis=0, ddof=1)
    for group, latent in zip(rows, factor_vae_score.votes(codes, variance, rows), strict=True):
        spread = [np.var([codes[n, d] for n in group], ddof=1) / variance[d] for d in range(3)]
        assert latent == spread.index(min(spread))
    columns = np.arange(30) % 3 + 1
    found = beta_vae_score.differences(codes, factors, columns, random=np.random.default_rng(10))
    pairs = np.repeat(columns, 64)
    rows = examples.sharing(factors, pairs, 2, random=np.random.default_rng(10))
    for point, start in zip(found, range(0, len(rows), 64), strict=True):
        apart = [np.abs(codes[i] - codes[j]) for i, j in rows[start : start + 64]]
        np.testing.assert_allclose(point, sum(apart) / 64)


def test_collapsed_latents_have_no_vote():
    factors = grid(6)
    codes = np.concatenate([perfect(factors), 1e-3 * noise(factors)], axis=1)
    assert factor_vae_score.scores(examples.quick(codes, factors)).factor_vae_score == 1.0
    assert factor_vae_score.scores(examples.quick(1e-3 * codes, factors)).factor_vae_score == 0.0


def test_robustness_is_the_papers_formula():
    codes, factors = small()
    codes = np.concatenate([codes, np.ones((len(codes), 1))], axis=1)
    total = weights = 0.0
    for z in codes.T[:3]:
        greatest = max(abs(z - z.mean()))
        best = 0.0
        for v in factors.T[1:]:
            groups = [z[v == value] for value in set(v)]
            moved = [np.quantile(abs(group - group.mean()), 0.99) for group in groups]
            best = max(best, 1 - np.mean(moved) / greatest)
        total, weights = total + best * greatest, weights + greatest
    assert irs.scores(examples.quick(codes, factors)).irs == pytest.approx(total / weights)
    assert irs.scores(examples.quick(0.0 * codes, factors)).irs == 0.0


def test_explicitness_is_the_chance_of_ranking_a_pair_rightly():
    random = np.random.default_rng(11)
    factors = random.integers(0, 2, (300, 1))
    codes = factors + random.standard_normal((300, 1))
    z, v = codes[200:, 0], factors[200:, 0]
    ranked = [a > b for a in z[v == 1] for b in z[v == 0]]
    assert explicitness.scores(examples.quick(codes, factors)).explicitness == pytest.approx(
        np.mean(ranked)
    )


@pytest.mark.parametrize("relation", [udr.lasso, udr.spearman])
def test_models_alike_up_to_order_and_sign_rank_above_a_turned_one(relation):
    z = np.random.default_rng(12).standard_normal((500, 3))
    dead = 1e-3 * np.random.default_rng(13).standard_normal((500, 1))
    turn = np.linalg.qr(np.random.default_rng(14).standard_normal((3, 3)))[0]
    means = [np.hstack([z, dead]), np.hstack([dead, -z[:, [2, 0, 1]]]), np.hstack([z @ turn, dead])]
    means.append(2.0 * means[0])
    kls = [np.array([2.0, 2, 2, 0]), np.array([0.0, 2, 2, 2])] + [np.array([2.0, 2, 2, 0])] * 2
    scores = udr.scores(means, kls, relation=relation)
    assert scores[[0, 1, 3]].min() > 0.85 > scores[2] + 0.1
    collapsed = udr.scores(means, [0.0 * kl for kl in kls], relation=relation)
    np.testing.assert_array_equal(collapsed, 0.0)


def test_likeness_of_models_is_the_papers_formula():
    matrix = np.array([[0.9, 0.1], [0.0, 0.5], [0.0, 0.0]])
    codes = np.random.default_rng(15).standard_normal((50, 3))
    total = 0.0
    for b in range(2):
        total += max(matrix[:, b]) ** 2 / sum(matrix[:, b])
    for a in range(2):  # the third is like no latent of the other model
        total += max(matrix[a]) ** 2 / sum(matrix[a])
    found = udr.likeness(codes, codes[:, :2], lambda one, other: matrix)
    assert found == pytest.approx(total / 5)
    ranked = [[abs(stats.spearmanr(a, b).statistic) for b in codes[:, :2].T] for a in (codes**3).T]
    np.testing.assert_allclose(udr.spearman(codes**3, codes[:, :2]), ranked, atol=1e-12)
