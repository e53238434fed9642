"""The page of a study and study.json hold the medians, shares and correlations of its reports."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from pipeline.display import terminal
from pipeline.outputs import comparison
from pipeline.outputs.studies import declared, page, results
from pipeline.runtime import errors, run_config
from tests.support import studies

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
# By run, in the study's order: one/seed3, two/seed3, one/seed5, two/seed5, one/seed7, two/seed7.
ELBO = [-100.0, -80.0, -104.0, -86.0, -101.0, -90.0]
RATE = [10.0, 14.0, 11.0, 13.0, 12.0, 18.0]
UDR = {"one": [0.5, 0.25, 0.75], "two": [0.125, 0.375, 0.0]}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of six evaluated runs; their latents are ranked as in `UDR`."""
    found = declared.read(studies.write(tmp_path, seeds=(3, 5, 7)), tmp_path / "out")
    for run, elbo, rate in zip(found.runs, ELBO, RATE, strict=True):
        run_config.save(run.config, run.workdir)
        (run.workdir / "checkpoints" / "60").mkdir(parents=True)
        run.report.mkdir(parents=True)
        report = {
            "step": 60, "examples": 8, "evaluations": ["heldout", "latents"], "left_out": {},
            "files": {}, "figures": {"elbo": elbo, "rate": rate, "loss": 1.0},
            "data": {"name": "sprites"},
        }  # fmt: skip
        (run.report / "metrics.json").write_text(json.dumps(report))

    def ranking(runs):
        (method,) = {run.workdir.parent.name for run in runs}
        return {"udr_lasso": UDR[method][: len(runs)]}

    monkeypatch.setattr(comparison, "ranking", ranking)
    return found


def written(study, tmp_path):
    """Returns the page and the contents of study.json."""
    path = page.write(tmp_path, results.gather(study), terminal.Terminal(active=False))
    assert path == tmp_path / "index.html"
    return path.read_text(), json.loads((tmp_path / "study.json").read_text())


def test_study_json_has_the_statistics_over_seeds(study, tmp_path):
    _, found = written(study, tmp_path)
    assert list(found["summaries"]) == ["elbo", "rate", "udr_lasso"]
    for metric, columns in {"elbo": ELBO, "rate": RATE}.items():
        for place, method in enumerate(("one", "two")):
            values, summary = columns[place::2], found["summaries"][metric][method]
            assert summary["values"] == values
            assert summary["median"] == np.median(values)
            quartiles = [summary["lower_quartile"], summary["upper_quartile"]]
            assert quartiles == pytest.approx(np.quantile(values, (0.25, 0.75)))
            expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
            assert summary["interval"] == pytest.approx(tuple(expected))
    assert found["summaries"]["udr_lasso"]["two"]["values"] == UDR["two"]
    assert [run["figures"]["udr_lasso"] for run in found["runs"]][:3] == [0.5, 0.125, 0.25]
    assert (found["missing"], found["seeds"]) == ([], [3, 5, 7])


def test_study_json_has_the_shares_of_variance_and_the_rank_correlations(study, tmp_path):
    _, found = written(study, tmp_path)
    groups = np.array([ELBO[::2], ELBO[1::2]])
    within = np.square(groups - groups.mean(axis=1, keepdims=True)).sum()
    total = np.square(groups - groups.mean()).sum()
    share = found["variance_explained_by_method"]["elbo"]
    assert share == pytest.approx({"share": 1 - within / total, "chance": 1 / 5})
    udr = [UDR["one"][0], UDR["two"][0], UDR["one"][1], UDR["two"][1], UDR["one"][2], UDR["two"][2]]
    expected = stats.spearmanr(np.array([ELBO, RATE, udr]).T).statistic
    correlations = found["rank_correlations"]
    assert correlations["metrics"] == ["elbo", "rate", "udr_lasso"]
    np.testing.assert_allclose(correlations["spearman"], expected, atol=1e-12)


def test_the_page_shows_medians_marks_the_best_and_says_what_the_seed_decides(study, tmp_path):
    text, _ = written(study, tmp_path)
    cells = re.findall(r'<td class="value( best)?" data-run="(\w+)">(?:★ )?<b>([^<]+)</b>', text)
    assert cells == [
        ("", "one", "−101"), (" best", "two", "−86"),  # ELBO
        ("", "one", "11"), ("", "two", "14"),  # of the rate no direction is better
        (" best", "one", "0.5"), ("", "two", "0.125"),
    ]  # fmt: skip
    assert "[−102.5, −100.5]" in text
    assert text.count('<svg role="img"') == 3
    shares = [results.gather(study).explained(m).share for m in ("elbo", "rate", "udr_lasso")]
    assert [share < 0.5 for share in shares] == [False, False, True]
    assert "more of the variance than the method in 1 of 3 metrics (UDR lasso)." in text
    assert "would be 20 % on average" in text
    assert f'<td class="value">{100 * shares[0]:.0f} %</td>' in text
    assert "Missing" not in text
    assert "--config=configs/beta_vae.py:smoke --config.model.beta=4" in text


def test_runs_that_are_missing_are_named_and_the_others_shown(study, tmp_path):
    (study.runs[3].report / "metrics.json").write_text("{")
    (study.runs[4].workdir / "checkpoints" / "60").rename(tmp_path / "60")
    text, found = written(study, tmp_path)
    assert found["missing"] == ["two/seed5", "one/seed7"]
    assert "Not trained or not evaluated yet: two/seed5, one/seed7." in text
    assert found["summaries"]["elbo"]["one"]["values"] == [-100.0, -104.0]


def test_a_single_run_has_no_interval_and_no_share(study, tmp_path):
    for run in study.runs[1:]:
        (run.report / "metrics.json").unlink()
    text, found = written(study, tmp_path)
    assert found["summaries"]["elbo"]["one"]["interval"] is None
    assert found["variance_explained_by_method"] == {}
    assert "udr_lasso" not in found["summaries"]
    assert "Variance needs two methods or more" in text
    assert "Rank correlations" not in text


def test_a_udr_that_is_not_finite_is_unknown(study, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "ranking", lambda runs: {"udr_lasso": [0.5, np.nan, None]})
    _, found = written(study, tmp_path)
    assert found["summaries"]["udr_lasso"]["one"]["values"] == [0.5]
    assert found["runs"][2]["figures"]["udr_lasso"] is None


def test_a_study_without_a_report_has_no_page(study):
    for run in study.runs:
        (run.report / "metrics.json").unlink()
    with pytest.raises(errors.InputError, match="no run of the study is trained and evaluated"):
        results.gather(study)


@pytest.mark.parametrize(("value", "css"), [
    (1.0, "rgba(59, 130, 196, 0.600)"), (-0.5, "rgba(214, 80, 106, 0.300)"),
])  # fmt: skip
def test_the_colour_of_a_cell_tells_sign_and_size(value, css):
    assert page.colour(value) == css
