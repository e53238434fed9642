"""A run in a bucket is exported to this computer, with the figures of its report."""

import json

import jax
import numpy as np

from configs import beta_vae
from pipeline import export
from pipeline.runtime import files
from tests.support.runs import save_run


def test_a_run_in_a_bucket_is_exported_to_a_folder(place, tmp_path, monkeypatch):
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    config = beta_vae.get_config("smoke")
    config.model.hidden = (16,)
    run = save_run(place / "run", config)
    report = {
        "step": 2, "examples": 256, "evaluations": ["heldout"], "left_out": {}, "files": {},
        "figures": {"elbo": -12.5},
    }  # fmt: skip
    files.write(run / "reports" / "2" / "metrics.json", json.dumps(report))
    arguments = [f"--workdir={run}", f"--out={tmp_path / 'out'}", "--step=2"]
    out = export.run(export.parse(["export", *arguments]))
    card = (out / "README.md").read_text()
    assert "| `elbo` | -12.5 |" in card
    assert "--workdir=runs/run --step=2" in card
    function = jax.export.deserialize(bytearray((out / "decode.stablehlo").read_bytes()))
    assert function.out_avals[0].dtype == np.float32
