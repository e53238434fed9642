"""One row describes a figure everywhere: TensorBoard, the report, the terminal and the page."""

import io
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing import plugin_event_accumulator

from configs import (
    beta_tcvae,
    beta_vae,
    capacity_vae,
    conditional_vae,
    dip_vae,
    factor_vae,
    info_vae,
    vq_vae,
)
from pipeline import datasets, evals
from pipeline.display import dashboards, figures, marked_pages, pages, tensorboard, terminal
from pipeline.mesh import sharding
from pipeline.outputs import comparison, report_files, saved_reports
from pipeline.training import batching, evaluation, step

EVALS = Path(__file__).parents[2] / "pipeline" / "evals"
ABOUT = {
    "run": "r", "step": 3, "choice": "", "seed": 0, "examples": 8, "model": "m",
    "data": {"name": "d", "train": 1, "heldout": 1, "entries": {}}, "evaluations": [],
    "left_out": {},
}  # fmt: skip
SURPRISE = figures.Figure(
    "surprise",
    "nats",
    "How unlikely the batch is, nats per example.",
    more="Made up.",
    direction="lower",
    chart="Objective: Surprise (nats)",
    curve="surprise",
    headline=2,
    terminal="surprise {} nats",
)


def show_everywhere(folder, value):
    """Logs, reports, compares and prints a metric `surprise`; returns the four outputs."""
    with tensorboard.Writer(folder / "tensorboard", resume_step=None) as writer:
        writer.write("train/surprise", value, 1)
        writer.write("train/surprise", value + 1, 2)
        writer.about(dashboards.of_run(beta_vae.get_config(), ["surprise"]))
    events = plugin_event_accumulator.EventAccumulator(str(folder / "tensorboard")).Reload()
    values = [
        evals.Value("heldout", "surprise", value),
        evals.Value("heldout", "elbo", -value),
    ]
    report_files.write(folder, folder, beta_vae.get_config(), ABOUT, values, [])
    found = saved_reports.read(folder)
    other = found | {"figures": {"surprise": value + 1}}
    runs = [comparison.Run(folder, folder, each, {}) for each in (found, other)]
    line = io.StringIO()
    with terminal.Terminal(console=Console(file=line)).progress(9) as progress:
        progress.update(2, metrics={"loss": 1.0, "surprise": value})
    return events, (folder / "index.html").read_text(), comparison.compare(runs), line.getvalue()


def test_a_row_shows_a_metric_in_tensorboard_the_report_the_terminal_and_the_page(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(figures.BY_NAME, "surprise", SURPRISE)
    events, page, compared, line = show_everywhere(tmp_path, 2.5)
    assert events.SummaryMetadata("train/surprise").summary_description == SURPRISE.text
    (layout,) = events.Tensors("custom_scalars__config__")
    assert b"Surprise (nats)" in layout.tensor_proto.string_val[0]
    tiles = re.findall(r'class="card tile">\s*<h3>(.*?)</h3>', page)
    assert tiles == ["ELBO", "surprise"]
    assert page.count(SURPRISE.text) == 2  # the tile and the table
    assert "<svg" in page  # its curve
    assert compared.best("surprise") == 2.5
    assert "loss 1  surprise 2.5 nats" in line
    row = f"| `surprise` | {SURPRISE.text} Made up. | nats | lower |  |"
    assert figures.lines()[-1] == row


def test_a_figure_without_a_row_is_shown_under_its_own_name(tmp_path):
    events, page, compared, line = show_everywhere(tmp_path, 2.5)
    assert events.SummaryMetadata("train/surprise").summary_description == ""
    assert "<code>surprise</code></th>" in page
    assert compared.figures["surprise"] == [2.5, 3.5]
    assert compared.best("surprise") is None
    assert "step 2/9  loss 1  " in line
    comparison.write(tmp_path / "c.html", compared, terminal.Terminal(active=False))
    assert pages.describe("surprise") == ""


def test_a_picture_and_a_distribution_without_a_row_are_shown_too(tmp_path):
    values = [
        evals.Value("own", "my_picture", np.zeros((4, 4, 1), np.uint8)),
        evals.Value("own", "my_numbers", np.arange(3.0)),
        evals.Value("own", "my_text", "words"),
    ]
    report_files.write(tmp_path, tmp_path, beta_vae.get_config(), ABOUT, values, [])
    page = (tmp_path / "index.html").read_text()
    assert all(name in page for name in ("my picture", "my numbers", "my text"))


def test_the_page_is_up_to_date():
    text = figures.PAGE.read_text()
    assert text == marked_pages.replaced(text, "figures", figures.lines()), (
        "run python -m pipeline.display.figures"
    )


def test_every_row_is_whole():
    assert len(figures.BY_NAME) == len(figures.TABLE)
    for figure in figures.TABLE:
        assert figure.text.endswith("."), figure.name
        assert figure.direction in ("", "higher", "lower"), figure.name
        assert not figure.same_as or figure.same_as in figures.BY_NAME, figure.name
        assert not figure.needs or (EVALS / f"{figure.needs}.py").is_file(), figure.name
        assert ("better" not in figure.text) or f"{figure.direction} is better" in figure.text
    titles = [figure.curve for figure in figures.TABLE if figure.curve]
    assert set(report_files.ORDER) == set(titles)


def test_every_figure_that_an_evaluation_yields_has_a_row():
    for path in EVALS.glob("*.py"):
        for name in re.findall(r'yield "heldout/(\w+)"', path.read_text()):
            assert name in figures.BY_NAME, f"{path.name}: {name}"


@pytest.mark.parametrize(
    "variant",
    [
        beta_tcvae,
        beta_vae,
        capacity_vae,
        conditional_vae,
        dip_vae,
        factor_vae,
        info_vae,
        vq_vae,
    ],
)
def test_every_figure_that_a_variant_logs_has_a_row(variant):
    config = variant.get_config("smoke")
    mesh = sharding.make_mesh({"data": -1})
    example = datasets.example_spec(config)
    abstract = step.abstract_state(config, example)
    batch = batching.abstract_batch(config, mesh)
    eval_step = evaluation.make_eval_step(config, example, mesh)
    summed = jax.eval_shape(eval_step, abstract, batch, jax.ShapeDtypeStruct((), np.uint32))
    logged = jax.eval_shape(evaluation.make_summary(config, example), abstract, summed)
    assert logged.keys() <= figures.BY_NAME.keys()


@pytest.mark.parametrize("text", ["", "<!-- a -->\n", "<!-- /a -->\n<!-- a -->\n"])
def test_a_page_without_both_marks_is_refused(text):
    with pytest.raises(ValueError, match="needs one line <!-- a -->"):
        marked_pages.replaced(text, "a", [])


def test_only_the_lines_between_the_marks_are_replaced():
    text = "x\n<!-- a -->\nold\n<!-- /a -->\ny\n"
    assert marked_pages.replaced(text, "a", ["1", "2"]) == ("x\n<!-- a -->\n1\n2\n<!-- /a -->\ny\n")
