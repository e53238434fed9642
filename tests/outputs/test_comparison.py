"""Runs are ranked only if their figures mean the same, and whatever they hold is shown as text."""

import html.parser
import json

import numpy as np
import pytest

from configs import default
from pipeline import evals
from pipeline.display import figures, pages, tensorboard, terminal
from pipeline.outputs import comparison, report_files

SPRITES = {"name": "sprites", "train": 90, "heldout": 10, "entries": {"image": [8, 8, 1]}}
NASTY = """<script>alert("1")</script>'"|`$x$](javascript:1)\x1b[31m"""


class Page(html.parser.HTMLParser):
    """The elements and attributes of a page, and its visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.text += data


def run(folder, *, data=SPRITES, examples=8, fingerprint=None, config=None, **values):
    """Returns a run with these held-out figures, made of files as training leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    if fingerprint is not None:
        (folder / "data.json").write_text(json.dumps(fingerprint))
    found = {"step": 5, "examples": examples, "files": {}, "figures": values, "data": data}
    given = {"model.name": "beta_vae", "model.likelihood": "bernoulli", "seed": 0}
    return comparison.Run(folder, folder, found, given | (config or {}))


def page_of(folder, runs):
    found = comparison.compare(runs)
    comparison.write(folder / "compare.html", found, terminal.Terminal(active=False))
    return (folder / "compare.html").read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"data": SPRITES | {"name": "dsprites"}},
        {"data": SPRITES | {"heldout": 20}},
        {"data": SPRITES | {"entries": {"image": [8, 8, 3]}}},
        {"examples": 4},
        {"config": {"data.path": "/other"}},
        {"fingerprint": {"pixels": "b"}},
        {"fingerprint": {"heldout.pixels": "a", "classes": "x"}},
    ],
)
def test_runs_on_different_data_are_named_and_not_ranked(tmp_path, change):
    same = {"pixels": "a", "classes": "cat, dog"} if "fingerprint" in change else None
    one = run(tmp_path / "one", elbo=-2.0, mig=0.1, fingerprint=same)
    two = run(tmp_path / "two", elbo=-1.0, mig=0.2, **change)
    found = comparison.compare([one, two])
    assert found.caution.startswith("These runs are on different data")
    assert "one on sprites" in found.caution and "two on " in found.caution
    assert [found.best(name) for name in ("elbo", "mig")] == [None, None]
    assert found.caution in Page(page_of(tmp_path, [one, two])).text


def test_runs_on_the_same_data_are_ranked_whatever_their_seeds_hold_out(tmp_path):
    fingerprints = [{"heldout.examples": "10", "heldout.content": 12 * c} for c in "ab"]
    runs = [
        run(tmp_path / f"r{seed}", elbo=-float(seed), config={"seed": seed}, fingerprint=each)
        for seed, each in enumerate(fingerprints)
    ]
    found = comparison.compare(runs)
    assert (found.caution, found.best("elbo"), found.arrow("elbo")) == ("", 0.0, "↑")


def test_a_likelihood_ranks_only_the_same_kind_of_likelihood(tmp_path):
    gaussian = {"model.likelihood": "gaussian"}
    one, two = run(tmp_path / "a", elbo=-2.0, mig=0.1), run(tmp_path / "b", elbo=-1.0, mig=0.2)
    other = run(tmp_path / "c", elbo=5.0, mig=0.3, config=gaussian)
    none = run(tmp_path / "d", mig=0.0, config=gaussian)  # has no ELBO, so it changes nothing
    assert comparison.compare([one, two, none]).best("elbo") == -1.0
    mixed = comparison.compare([one, two, other])
    assert (mixed.best("elbo"), mixed.best("mig")) == (None, 0.3)


def test_a_loss_ranks_only_runs_of_the_same_objective(tmp_path, monkeypatch):
    row = figures.BY_NAME["loss"]._replace(within_run="lower")
    monkeypatch.setitem(figures.BY_NAME, "loss", row)
    runs = [run(tmp_path / name, loss=value) for name, value in (("a", 2.0), ("b", 1.0))]
    assert comparison.compare(runs).best("loss") == 1.0
    runs.append(run(tmp_path / "c", loss=0.5, config={"model.beta.end": 4.0}))
    assert comparison.compare(runs).best("loss") is None


def test_every_figure_with_a_direction_is_marked_and_the_marks_are_explained(tmp_path):
    ranked = [row.name for row in figures.TABLE if row.direction]
    runs = [run(tmp_path / name, **dict.fromkeys(ranked, i)) for i, name in enumerate("ab")]
    found = comparison.compare(runs)
    assert all(found.best(name) in (0, 1) for name in ranked)
    text = page_of(tmp_path, runs)
    assert text.count('class="value best"') == len(ranked)
    assert "An arrow says which values are better" in text


def test_the_curves_of_all_runs_lie_over_each_other(tmp_path):
    runs = []
    for name in ("first", "_second", "$third"):
        runs.append(run(tmp_path / name, elbo=-1.0))
        with tensorboard.Writer(tmp_path / name / "tensorboard", resume_step=None) as writer:
            for step in (1, 2, 3):
                writer.write("train/loss", 3.0 / step, step)
                writer.write("heldout/elbo", -3.0 / step, step)
    charts = list(comparison.curves(runs, [each.workdir.name for each in runs]))
    assert len(charts) == 2
    for chart in charts:
        assert all(each.workdir.name in chart for each in runs)  # the legend
        assert 'role="img"' in chart and "aria-label" in chart


def test_names_and_values_of_a_run_are_text_on_the_page_and_in_the_terminal(tmp_path, capsys):
    name = NASTY.replace("/", "")
    runs = [
        run(tmp_path / f"{i}{name}", elbo=-float(i), config={"data.name": NASTY, "seed": i})
        for i in range(2)
    ]
    with tensorboard.Writer(runs[0].workdir / "tensorboard", resume_step=None) as writer:
        writer.write("train/loss", 1.0, 1)
        writer.write("train/loss", 2.0, 2)
    for each in runs:
        each.found["figures"][NASTY] = 1.0
    runs[0].config["model.note"] = NASTY
    found = comparison.compare(runs)
    comparison.write(tmp_path / "compare.html", found, terminal.Terminal())
    page = Page((tmp_path / "compare.html").read_text())
    assert not {"script", "iframe", "object", "link", "a"} & set(page.tags)
    assert not [attribute for attribute, _ in page.attributes if attribute.startswith("on")]
    assert page.text.count('<script>alert("1")</script>') == 2
    assert "\x1b" not in page.text
    assert "\x1b" not in capsys.readouterr().out


def test_a_report_shows_names_and_values_of_a_run_as_text(tmp_path):
    config = default.get_config()
    config.data.path = NASTY
    about = {
        "run": NASTY, "step": 3, "choice": "", "seed": 0, "examples": 8, "model": NASTY,
        "data": SPRITES | {"name": NASTY}, "evaluations": [], "left_out": {},
    }  # fmt: skip
    values = [
        evals.Value(NASTY, f"../../{NASTY}", np.zeros((4, 4, 1), np.uint8)),
        evals.Value(NASTY, "table", f"| {NASTY} |\n|---|\n| [x](javascript:1) ![y](http://z) |"),
        evals.Value(NASTY, NASTY, 1.0),
        evals.Value(NASTY, "kl_per_latent", np.arange(3.0)),
    ]
    folder = tmp_path / "a" / "b" / "c"
    found = report_files.write(folder, tmp_path, config, about, values, [NASTY], {"command": NASTY})
    page = Page((folder / "index.html").read_text())
    assert not {"script", "iframe", "object", "link"} & set(page.tags)
    links = [value for name, value in page.attributes if name in ("href", "src")]
    assert all(value.startswith(("#", "data:image/png;")) for value in links)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert {path.parent for path in tmp_path.rglob("*.png")} == {folder}
    assert "/" not in next(iter(found["files"].values()))


def test_a_report_has_its_figures_first_and_says_how_it_was_made(tmp_path):
    with tensorboard.Writer(tmp_path / "tensorboard", resume_step=None) as writer:
        for step in (10, 20):
            writer.write("train/ms_per_step", 500.0, step)
            writer.write("train/loss", 1.0, step)
    about = {
        "run": "r", "step": 20, "choice": "best", "seed": 0, "examples": 8, "model": "beta_vae",
        "data": SPRITES, "evaluations": [], "left_out": {"code_maps": "no codes: take it out"},
    }  # fmt: skip
    values = [
        evals.Value("heldout", "elbo", -1.0),
        evals.Value("heldout", "loss", 1.0),
        evals.Value("samples", "samples", np.zeros((4, 4, 1), np.uint8)),
    ]
    made = {"made": "today", "command": "python -m pipeline.evaluate", "devices": "1 × cpu"}
    report_files.write(tmp_path, tmp_path, default.get_config(), about, values, [], made)
    text = (tmp_path / "index.html").read_text()
    places = [text.index(f'<h2 id="{name}"') for name in ("figures", "curves", "pictures", "run")]
    assert places == sorted(places)
    for name in ("figures", "curves", "pictures", "run"):
        assert f'<a href="#{name}">' in text
    assert "0:00:10 for 20 steps" in text
    assert all(value in text for value in made.values())
    assert "take it out" not in text
    assert text.index("<code>loss</code>") < text.index("<code>elbo</code>")
    assert text.count("<th ") == text.count("<th scope=")
    assert text.count("<svg ") == text.count('<svg role="img" aria-label=')
    assert f'alt="{pages.describe("samples")}"' in text
