"""A run of version 0.1.0, `support/old_run_0_1_0.zip`, resumes today.

This command made its folder on one device, before the modules moved into rooms:

python -m pipeline.train --config=configs/beta_vae.py:smoke SIZES --config.total_steps=20
"""

import hashlib
import json
import sys
import zipfile

import jax
import numpy as np
import pytest

from pipeline import evaluate, generate
from pipeline.outputs import saved_state
from pipeline.runtime import run_config
from pipeline.training import setup
from tests.support.commands import train
from tests.support.processes import ROOT, SCALARS
from tests.support.runs import committed, scalars

ARCHIVE = ROOT / "tests" / "support" / "old_run_0_1_0.zip"
SIZES = (
    "--config.model.hidden=(1,)",
    "--config.model.latent_dim=2",
    "--config.batch_size=16",
    "--config.data.train_examples=1000",
    "--config.log_every_steps=5",
    "--config.eval_examples=64",
    "--config.eval_every_steps=20",
    "--config.checkpoint.every_steps=20",
    SCALARS,
)
# What version 0.1.0 itself computed: names and bits of the parameters at step 20, the figure of its
# held-out examples, and its own steps up to 25.
PARAMETERS = "8d37bfc199405c45a89fb3480cb444492b331139aef940e964cab3fe40944103"
ELBO = -2848.061767578125
LATER = {"train/loss": 2829.56689453125, "heldout/elbo": -2837.282958984375}


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: devices)


@pytest.fixture
def workdir(tmp_path):
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path / "run")
    return tmp_path / "run"


def test_an_old_runs_parameters_are_restored_with_their_names_and_bits(workdir):
    ready = setup.prepare_evaluation(run_config.load(workdir))
    at, state = saved_state.restore(workdir, "latest", ready)
    assert at == 20 == int(state.step)
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(state.params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes())
    assert digest.hexdigest() == PARAMETERS


def test_an_old_run_goes_on_as_it_would_have(workdir):
    out, _ = train(workdir, "--config.total_steps=25", *SIZES)
    assert "20 of 25 done" in out
    assert committed(workdir) == [20, 25]
    points = scalars(workdir)
    assert [step for step, _ in points["train/loss"]] == [5, 10, 15, 20, 25]
    for tag, value in LATER.items():
        assert points[tag][-1] == (25, pytest.approx(value, rel=1e-5))


def test_an_old_run_is_evaluated_and_sampled_from(workdir, monkeypatch):
    for command, argument in ((evaluate, "--evals=heldout"), (generate, "--num=3")):
        monkeypatch.setattr(sys, "argv", ["command", f"--workdir={workdir}", argument])
        assert command.main() == 0
    folder = workdir / "reports" / "20"
    figures = json.loads((folder / "metrics.json").read_text())["figures"]
    assert figures["elbo"] == pytest.approx(ELBO, rel=1e-5)
    with np.load(folder / "generated.npz") as file:
        assert file["images"].shape == (3, 64, 64, 1)
