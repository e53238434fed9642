"""A backend that cannot start is one line, in every command."""

import os
import subprocess
import sys

import jax
import pytest

from configs import beta_vae
from pipeline.runtime import backends, errors, run_config
from tests.support.processes import ROOT

TRAIN = ("train", "--config=configs/beta_vae.py:smoke", "--workdir={}/new")


@pytest.mark.parametrize(
    ("platform", "command"),
    [
        ("cuda", TRAIN),
        ("nonsense", TRAIN),
        ("cuda", (*TRAIN, "--dry_run")),
        ("nonsense", ("benchmark", "--config=configs/beta_vae.py:smoke")),
        ("cuda", ("evaluate", "--workdir={}/run")),
        ("nonsense", ("evaluate", "--compare", "{}/run", "{}/run")),
        ("cuda", ("generate", "--workdir={}/run")),
        ("nonsense", ("generate", "--workdir={}/run", "--tokens=train")),
    ],
)
def test_a_backend_that_cannot_start_is_one_line_with_the_repair(tmp_path, platform, command):
    run_config.save(beta_vae.get_config("smoke"), tmp_path / "run")
    name, *arguments = (text.format(tmp_path) for text in command)
    found = subprocess.run(
        [sys.executable, "-m", f"pipeline.{name}", *arguments],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2, found.stderr
    (line,) = found.stderr.strip().splitlines()
    assert line.startswith(f"error: JAX_PLATFORMS={platform!r} starts no device here (")
    assert line.endswith("JAX_PLATFORMS=cpu")
    assert not (tmp_path / "new").exists()


def raising(error):
    def devices():
        raise error

    return devices


def test_a_device_in_use_may_be_free_later(monkeypatch):
    busy = RuntimeError("Unable to initialize backend 'tpu': UNAVAILABLE: in use by process 7")
    monkeypatch.setattr(jax, "devices", raising(busy))
    with pytest.raises(OSError, match="in use by process 7"):
        backends.devices()
    monkeypatch.setattr(jax, "devices", raising(RuntimeError("no\nsuch chip")))
    with pytest.raises(errors.InputError, match="no such chip"):
        backends.devices()
