"""Statistics of a study against NumPy and SciPy, and hand-computed cases."""

import numpy as np
import pytest
from scipy import stats

from pipeline.outputs.studies import statistics


@pytest.mark.parametrize("num", [1, 2, 3, 10])
def test_a_summary_has_numpys_quartiles_and_scipys_interval(num):
    values = np.random.default_rng(num).standard_normal(num).tolist()
    found = statistics.summary(values)
    assert found.values == tuple(values)
    assert found.median == pytest.approx(np.median(values))
    assert found.lower_quartile == pytest.approx(np.percentile(values, 25))
    assert found.upper_quartile == pytest.approx(np.percentile(values, 75))
    if num == 1:
        assert found.half_width is None and found.interval is None
    else:
        expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert found.interval == pytest.approx((expected.low, expected.high))
    assert statistics.summary([]) is None


def test_the_methods_share_is_eta_squared():
    # Means 1 and 5 around 3: 4 × 2² = 16 between; 4 × 1² = 4 within.
    found = statistics.explained([[0.0, 2.0], [4.0, 6.0]])
    assert found == pytest.approx((16 / 20, 1 / 3))
    groups = np.random.default_rng(0).standard_normal((3, 4)) + np.arange(3)[:, None]
    share = statistics.explained(groups.tolist()).share
    statistic = stats.f_oneway(*groups).statistic
    assert share == pytest.approx(1 / (1 + (12 - 3) / (3 - 1) / statistic))


def test_the_share_by_chance_is_its_mean_over_seeds_alone():
    random = np.random.default_rng(1)
    found = [statistics.explained(random.standard_normal((5, 3)).tolist()) for _ in range(4000)]
    assert np.mean([each.share for each in found]) == pytest.approx(found[0].chance, abs=0.01)
    assert found[0].chance == pytest.approx(4 / 14)


@pytest.mark.parametrize(
    "groups", [[[1.0, 2.0]], [[1.0], [2.0]], [[1.0, 1.0], [1.0]], [[], [1, 2]]]
)
def test_a_share_needs_two_methods_and_two_seeds_that_differ(groups):
    assert statistics.explained(groups) is None


def test_rank_correlations_are_scipys():
    values = np.random.default_rng(2).standard_normal((9, 4))
    values[3, 1] = values[4, 1]  # a tie
    expected = stats.spearmanr(values).statistic
    np.testing.assert_allclose(statistics.rank_correlations(values), expected, atol=1e-12)
