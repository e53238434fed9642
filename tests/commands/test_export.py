"""The command that exports: what it prints, and the one line that a mistake costs."""

import importlib.util
import sys

import jax
import pytest

from configs import beta_vae
from pipeline import export
from pipeline.outputs.exporting import onnx_files
from tests.support import commands
from tests.support.runs import save_run


@pytest.fixture(autouse=True)
def few_devices(monkeypatch):
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: devices)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("plain"), beta_vae.get_config("smoke"))


def test_the_files_are_printed_and_an_empty_folder_is_taken(workdir, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["export", f"--workdir={workdir}", f"--out={out}", "--step=2"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert export.main() == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [str(path) for path in sorted(out.iterdir())]
    assert captured.err == ""
    assert {path.name for path in out.iterdir()} == {
        "README.md", "config.json", "params.safetensors", "use_me.py",
        "decode.stablehlo", "encode.stablehlo", "reconstruct.stablehlo", "sample.stablehlo",
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == [out]


def refusal(capsys, monkeypatch, *arguments):
    return commands.refusal(export.main, capsys, monkeypatch, *arguments)


def test_a_mistake_is_one_line_and_leaves_nothing(workdir, tmp_path, capsys, monkeypatch):
    new, empty = tmp_path / "new", tmp_path / "empty"
    empty.mkdir()
    for arguments, words in [
        ((f"--workdir={empty}", f"--out={new}"), "holds no run"),
        ((f"--workdir={workdir}",), "--out is needed: python -m pipeline.export"),
        ((f"--workdir={workdir}", f"--out={new}", "--step=7"), "--step=7 is no checkpoint"),
        ((f"--workdir={workdir}", f"--out={workdir}"), f"--out={workdir} exists: name a new"),
        ((f"--workdir={workdir}", f"--out={__file__}"), "is a file: name a folder"),
        ((f"--workdir={workdir}", "--out=gs://bucket/a"), "must lie on this machine"),
        ((f"--workdir={workdir}", f"--out={new}", "--license=my own"), "such as mit or"),
    ]:
        assert words in refusal(capsys, monkeypatch, *arguments)
        assert list(tmp_path.iterdir()) == [empty]


def test_a_missing_extra_is_named_before_anything_is_exported(
    workdir, tmp_path, capsys, monkeypatch
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "jax2onnx" else find_spec(name, *rest),
    )
    arguments = (f"--workdir={workdir}", f"--out={tmp_path / 'out'}", "--onnx")
    line = refusal(capsys, monkeypatch, *arguments)
    assert "--onnx needs jax2onnx: pip install 'vae-pipeline[onnx]'" in line
    assert list(tmp_path.iterdir()) == []


def test_if_nothing_can_be_converted_the_command_ends_with_a_reason_a_function(
    workdir, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(onnx_files, "check_installed", lambda: None)
    names = ("encode", "decode", "reconstruct", "sample")
    refused = {name: f"no primitive of {name}" for name in names}
    monkeypatch.setattr(onnx_files, "convert", lambda model, chosen: ({}, refused))
    arguments = (f"--workdir={workdir}", f"--out={tmp_path / 'out'}", "--onnx")
    line = refusal(capsys, monkeypatch, *arguments)
    for name in names:
        assert f"{name} has no file of ONNX: no primitive of {name}" in line
    assert list(tmp_path.iterdir()) == []
