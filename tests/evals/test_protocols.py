"""The protocol of Locatello et al. 2019 gives the scores of their library and of their formulas.

The values in `LIBRARY` are those of disentanglement_lib itself (its commit 86a644d, its functions
`compute_…` with the settings of its study and scikit-learn 1.9.1) on the codes of `drawn`. Its
generator was replaced by one that hands out these rows in order, and the numbers of examples by the
ones here. Its trees draw from NumPy's global stream: the spread is over six seeds. The scores of
groups draw their own examples in each program: the spread is over eight seeds.
"""

import math
import threading

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn import ensemble

from pipeline.display import figures
from pipeline.evals.scores import (
    beta_vae_score,
    boosted_trees,
    dci,
    examples,
    explicitness,
    factor_vae_score,
    irs,
    metrics,
    mig,
    modularity,
    protocols,
    sap,
)
from pipeline.runtime import errors

SIZES = (3, 4, 6, 24)  # 24: more values than the bins of IRS
NUM_TRAIN, NUM_TEST = 1200, 600
LIBRARY = {
    "mig": 0.4571270003065699,
    "sap": 0.21541666666666667,
    "modularity": 0.8917007786107538,
    "explicitness": 0.9579181508085114,
    "irs": 0.5880322092983987,
}
# Mean and standard deviation over seeds.
LIBRARY_DRAWS = {
    "dci_disentanglement": (0.56708305, 0.00083095),
    "dci_completeness": (0.52166354, 0.00035625),
    "dci_informativeness": (0.81972222, 0.00100922),
    "factor_vae_score": (0.83283333, 0.00335706),
    "beta_vae_score": (0.88208333, 0.00646787),
}


@pytest.fixture(autouse=True)
def sizes(monkeypatch):
    monkeypatch.setattr(protocols, "NUM_TRAIN", NUM_TRAIN)
    monkeypatch.setattr(protocols, "NUM_TEST", NUM_TEST)
    for module in (factor_vae_score, beta_vae_score):
        monkeypatch.setattr(module, "NUM_TRAIN", 3000)
        monkeypatch.setattr(module, "NUM_TEST", 1500)


def grid():
    """Returns every combination of the factors, and the same with mean 0 and deviation 1."""
    rows = np.stack(np.unravel_index(np.arange(math.prod(SIZES)), SIZES), axis=1)
    return rows, (rows - rows.mean(axis=0)) / rows.std(axis=0)


def clear():
    """Returns a factor table and codes that tell the factors well, one image a row."""
    factors, unit = grid()
    mix = [[1, 0, 0, 0], [0, 1, 0, 0.4], [0, 0, 1, 0], [0.2, 0, 0, 1], [0, 0.6, 0.6, 0]]
    mix = np.array([*mix, [0, 0, 0, 0.02]])
    noise = np.random.RandomState(0).standard_normal((len(factors), 6))
    codes = unit @ mix.T + 0.3 * noise * np.array([1, 1, 1, 1, 1, 0.05])
    return factors, codes.astype(np.float32)


def mixed():
    """Returns a factor table and codes that mix the factors, with a dead latent."""
    factors, unit = grid()
    random, num = np.random.RandomState(2), len(factors)
    turn = np.linalg.qr(random.standard_normal((4, 4)))[0]
    turned = unit @ turn + random.standard_normal((num, 4))
    faint = 0.6 * unit[:, :1] + random.standard_normal((num, 1))
    dead = 0.02 * random.standard_normal((num, 1))
    return factors, np.concatenate([turned, faint, dead], axis=1).astype(np.float32)


def drawn(table=clear):
    """Returns the sample of images that were drawn with replacement."""
    factors, codes = table()
    rows = np.random.RandomState(1).randint(len(factors), size=NUM_TRAIN + NUM_TEST)
    return examples.locatello(codes[rows], factors[rows], codes, factors)


@pytest.mark.parametrize("module", [mig, sap, modularity, explicitness, irs])
def test_scores_are_those_of_disentanglement_lib(module):
    ((name, value),) = module.scores(drawn())._asdict().items()
    # Both explicitnesses stop before the last digits of the regression have settled.
    within = 2e-5 if name == "explicitness" else 1e-6
    assert value == pytest.approx(LIBRARY[name], abs=within)


def test_trees_and_groups_differ_from_disentanglement_lib_no_more_than_its_seeds_do():
    found = dci.scores(drawn())._asdict()
    found |= factor_vae_score.scores(drawn(mixed))._asdict()
    found |= beta_vae_score.scores(drawn(mixed))._asdict()
    assert found.keys() == LIBRARY_DRAWS.keys()
    for name, (mean, deviation) in LIBRARY_DRAWS.items():
        assert found[name] == pytest.approx(mean, abs=4 * deviation), name


def test_the_quick_protocol_has_other_scores():
    sample = drawn()
    codes = np.concatenate([sample.split.train_codes, sample.split.test_codes])
    factors = np.concatenate([sample.split.train_factors, sample.split.test_factors])
    quick = examples.quick(codes, factors)
    assert explicitness.scores(quick).explicitness < LIBRARY["explicitness"] - 0.05
    name, found = "dci_disentanglement", dci.scores(quick)
    mean, deviation = LIBRARY_DRAWS[name]
    assert abs(found.dci_disentanglement - mean) > 10 * deviation
    assert irs.scores(quick).irs != pytest.approx(LIBRARY["irs"], abs=1e-3)


def test_explicitness_is_the_rank_statistic_of_a_multinomial_regression():
    sample = drawn(mixed)
    part = sample.split
    centre, scale = part.train_codes.mean(axis=0), part.train_codes.std(axis=0)
    train, test = (part.train_codes - centre) / scale, (part.test_codes - centre) / scale
    means = []
    for target, truth in zip(part.train_factors.T, part.test_factors.T, strict=True):
        weights, offset = regression(train.astype(np.float64), target)
        logits = test @ weights + offset
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        means.append(np.mean([ranked(chances[:, v], truth == v) for v in np.unique(target)]))
    found = explicitness.scores(sample).explicitness
    assert found == pytest.approx(np.mean(means), abs=1e-4)


def regression(codes, target):
    """Minimises Σ −log p(target) + ½ |W|², by its formula; returns W [D, K] and the offset [K]."""
    num, classes = codes.shape[1], target.max() + 1
    truth = np.eye(classes)[target]

    def loss(flat):
        weights, offset = flat[: num * classes].reshape(num, classes), flat[num * classes :]
        logits = codes @ weights + offset
        log = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        error = np.exp(log) - truth
        slope = np.concatenate([(codes.T @ error + weights).ravel(), error.sum(axis=0)])
        return -(truth * log).sum() + 0.5 * (weights**2).sum(), slope

    options = {"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-6}
    start = np.zeros((num + 1) * classes)
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    return found[: num * classes].reshape(num, classes), found[num * classes :]


def ranked(scores, positive):
    """Returns the share of pairs that are ranked rightly (Mann and Whitney)."""
    return stats.mannwhitneyu(scores[positive], scores[~positive]).statistic / (
        positive.sum() * (~positive).sum()
    )


def test_robustness_cuts_factors_into_twenty_bins():
    sample = drawn()
    codes, factors = sample.codes.astype(np.float64), sample.factors
    total = weights = 0.0
    for z in codes.T:
        greatest, best = max(abs(z - z.mean())), 0.0
        for values in factors.T:
            low, high = values.min(), values.max()
            bins = [min(int((v - low) / (high - low) * 20), 19) for v in values]
            groups = [z[np.array(bins) == b] for b in set(bins)]
            moved = [np.quantile(abs(group - group.mean()), 0.99) for group in groups]
            best = max(best, 1 - np.mean(moved) / greatest)
        total, weights = total + best * greatest, weights + greatest
    assert irs.scores(sample).irs == pytest.approx(total / weights, abs=1e-9)


@pytest.mark.parametrize("values", [2, 5])
def test_trees_are_those_of_scikit_learn_while_splits_differ(monkeypatch, values):
    random = np.random.RandomState(3)
    target = random.randint(values, size=3000)
    codes = target[:, None] * [1.0, 0.3, 0.0] + random.standard_normal((3000, 3))
    codes, other = codes[:2000].astype(np.float32), codes[2000:].astype(np.float32)
    monkeypatch.setattr(boosted_trees, "NUM_STAGES", 4)
    heard = []
    found = boosted_trees.fit(codes, target[:2000] + 7, other, told=heard.append)
    learner = ensemble.GradientBoostingClassifier(n_estimators=4).fit(codes, target[:2000] + 7)
    np.testing.assert_allclose(found.importance, learner.feature_importances_, atol=2e-4)
    assert np.mean(found.predicted == learner.predict(other)) > 0.995
    assert heard == [1 if values == 2 else values] * 4


def test_trees_are_the_same_with_any_number_of_threads(monkeypatch):
    factors, codes = mixed()
    monkeypatch.setattr(boosted_trees, "NUM_STAGES", 5)
    results = []
    for threads in (1, 5):
        monkeypatch.setattr(boosted_trees, "MOST_THREADS", threads)
        monkeypatch.setattr(boosted_trees.os, "cpu_count", lambda: 8)
        results.append(boosted_trees.fit(codes, factors[:, 2], codes, seed=1))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_equal_and_neighbouring_codes_are_split_rightly(monkeypatch):
    monkeypatch.setattr(boosted_trees, "NUM_STAGES", 60)
    low = np.nextafter(np.float32(2), np.float32(3))
    next_one = np.nextafter(low, np.float32(3))  # in float32, their mean is this one itself
    for pair, told in (([0, 2], True), ([low, low], False), ([low, next_one], True)):
        codes = np.array(pair * 50, np.float32)[:, None]
        target = np.array([0, 1] * 50)
        found = boosted_trees.fit(codes, target, codes[:2])
        assert (list(found.predicted) == [0, 1]) is told
        assert found.importance == (1.0 if told else 0.0)


def test_ctrl_c_ends_the_trees_and_leaves_no_thread():
    factors, codes = mixed()

    def interrupt(trees):
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        boosted_trees.fit(codes, factors[:, 3], codes, told=interrupt)
    assert threading.active_count() == before


def test_figures_are_named_by_their_protocol():
    plain = metrics.figures(metrics.METRICS, protocols.LOCATELLO)
    quick = metrics.figures(metrics.METRICS, protocols.QUICK)
    assert not set(plain) & set(quick)
    assert {"mig_quick", "dci_quick_completeness", "mig_chen_quick_means"} <= set(quick)
    for name, other in zip(plain, quick, strict=True):
        assert figures.of(other).text.startswith(f"As `{name}`, quick")
    assert metrics.renamed({"sap": 0.1, "elbo": -3.0}) == {"sap_quick": 0.1, "elbo": -3.0}


def test_a_data_set_with_too_few_images_is_refused_in_one_line():
    protocols.check_size(NUM_TRAIN + NUM_TEST)
    with pytest.raises(errors.InputError, match="draws 1800 images, and the data set has 1799: ch"):
        protocols.check_size(1799)
