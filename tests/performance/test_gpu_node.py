"""The command for a GPU node: a trial on CPUs runs it from end to end. No test checks a time."""

import json

import pytest

from pipeline.performance import timing
from pipeline.performance.frameworks import forms, gpu_card, gpu_node, gpu_page, works
from pipeline.runtime import errors, run_config
from tests.support import commands
from tests.support.processes import ROOT

PYTORCH = "PyTorch channels-last"
TINY = ("--cpu", "--rounds=1", "--batch_size=1", "--benchmark=configs/beta_vae.py:smoke")


@pytest.fixture(autouse=True)
def repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_without_a_gpu_it_says_what_to_do(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_card, "QUERY", ("no-such-nvidia-smi",))
    out = tmp_path / "out"
    text = commands.refusal(gpu_node.main, capsys, monkeypatch, f"--out={out}")
    assert "no NVIDIA GPU answers nvidia-smi" in text and "--cpu" in text
    assert not out.exists()


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--work=vae", "--work=vae is unknown: choose of conv_beta_vae"),
        ("--rounds=0", "--rounds=0 must be at least 1"),
        ("--dtype=float16", "dtype"),
        ("--cpu=maybe", "cpu"),
    ],
)
def test_a_mistake_is_one_line(flag, words):
    with pytest.raises(errors.InputError, match=words):
        gpu_node.parse(["gpu_node", "--out=a", flag])


def test_the_parts_leave_time_for_rounds_within_ten_minutes():
    forms_of_all = len(gpu_node.WORKS) * len(gpu_node.FORMS)
    rounds = 8 * forms_of_all * 0.75  # seven and an untimed one, half a second each and a margin
    parts = gpu_node.BENCHMARK_SECONDS + gpu_node.START_SECONDS
    assert parts + rounds <= gpu_node.TOTAL_SECONDS < 600


def test_card_and_driver_are_named(monkeypatch):
    monkeypatch.setattr(gpu_card, "QUERY", ("printf", "H200, 580.1, 143771 MiB\\n" * 2))
    found = gpu_card.about(gpu_card.cards())
    assert (found["card"], found["driver"]) == ("2 × H200", "580.1")
    assert found["commit"] == "unknown" or len(found["commit"].split(",")[0]) == 40


def test_the_large_work_runs_only_if_it_is_named():
    assert works.LARGE not in works.WORKS and works.LARGE in gpu_node.WORKS
    work = works.make(works.LARGE, "compute_dtype=bfloat16")
    assert work.shape == (256, 256, 3)
    assert work.config.compute_dtype == "bfloat16"
    small = run_config.changed(works.sonnet_vq_vae().config, "compute_dtype=bfloat16")
    assert work.config.to_dict() == small.to_dict()


def test_the_page_has_every_form_and_why_one_is_missing():
    def figure(ratio):
        return {"ms": 1.25, "ratio": timing.Ratio(ratio, ratio, ratio), "version": "1"}

    figures = {
        "about": {"card": "1 × H200"},
        "a": {forms.OURS: figure(1.0), "PyTorch": figure(2.0)},
        "b": {"absent": "no time was left"},
        "left out": {"b PyTorch": "it ended with 1"},
        "benchmark": {"step": {"images/s": 5}},
    }
    page = gpu_page.markdown(figures, ["a", "b"], [forms.OURS, "PyTorch"])
    assert "- card: 1 × H200\n" in page
    assert "| this pipeline | 1.25 ms | – |\n" in page
    assert "| PyTorch | 2.000 (2.000 to 2.000) | – |\n" in page
    assert "- no b PyTorch: it ended with 1\n" in page and "- no b: no time was left\n" in page
    assert "| step: images/s | 5 |\n" in page


def test_a_trial_on_cpus_measures_everything(capsys, monkeypatch, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[bench]'")
    tried = {
        forms.OURS: forms.Form("ours"),
        PYTORCH: forms.Form("pytorch", ("channels-last",)),
        "another": forms.Form("no_such_framework"),
    }
    monkeypatch.setattr(gpu_node, "FORMS", tried)
    out = tmp_path / "new" / "gpu"
    monkeypatch.setattr("sys.argv", ["gpu_node", f"--out={out}", f"--work={works.LARGE}", *TINY])
    assert gpu_node.main() == 0, capsys.readouterr()
    figures = json.loads((out / "gpu.json").read_text())
    assert figures["about"]["card"] == "none: a trial on CPUs"
    assert figures["about"]["compute dtype"] == "bfloat16 in all forms"
    assert figures["benchmark"]["step"]["images/s"] > 0
    assert set(figures[works.LARGE]) == {forms.OURS, PYTORCH}
    assert figures[works.LARGE][PYTORCH]["ratio"][0] > 0
    assert f"{works.LARGE} another" in figures["left out"]
    assert list((out / "trace").rglob("*.xplane.pb"))
    assert "| this pipeline |" in (out / "gpu.md").read_text()
