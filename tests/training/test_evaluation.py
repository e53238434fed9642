"""Evaluations of a run while it trains: a picture that fails is a warning, and ends nothing."""

from types import ModuleType, SimpleNamespace

import numpy as np
from tensorboard.backend.event_processing import plugin_event_accumulator as events

from pipeline import evals
from pipeline.display import event_files, tensorboard, terminal
from pipeline.training import evaluation


def failing(state):
    yield "heldout/elbo", -1.0
    yield "heldout/samples", lambda: np.linalg.svd(np.full((2, 2), np.nan))
    yield "heldout/latents", "text"
    yield "heldout/rate", 2.0


def warning(*texts):
    module = ModuleType("own")
    module.make = lambda config, mesh, source: lambda state: ()
    module.warnings = lambda figures: list(texts)
    return module


def evaluations(*modules):
    if not modules:
        modules = (SimpleNamespace(__name__="own", make=lambda config, mesh, source: failing),)
    config = SimpleNamespace(model=SimpleNamespace(name="vq_vae"))
    opened = SimpleNamespace(heldout=[])
    ready = SimpleNamespace(config=config, mesh=None, opened=opened, evaluations=modules)
    return evaluation.Evaluations(ready)


def test_a_picture_that_cannot_be_drawn_ends_no_run(tmp_path):
    heard, evaluate = [], evaluations()
    with tensorboard.Writer(tmp_path, resume_step=None) as writer:
        for step in (1, 2):
            assert evaluate(None, writer, step, warn=heard.append) == {"elbo": -1.0, "rate": 2.0}
    assert len(heard) == 2
    assert heard[1].startswith("heldout/samples at step 2 could not be drawn and is left out (Lin")
    assert event_files.read_scalars(tmp_path)["heldout/rate"] == [(1, 2.0), (2, 2.0)]


def test_several_warnings_of_one_evaluation_are_one_text(tmp_path):
    heard, evaluate = [], evaluations(warning("codes", "discriminator"), warning("latents"))
    with tensorboard.Writer(tmp_path, resume_step=None) as writer:
        for step in (1, 2):
            evaluate(None, writer, step, warn=heard.append)
    assert heard == ["codes", "discriminator", "latents"]
    found = events.EventAccumulator(str(tmp_path)).Reload()
    (event,) = found.Tensors("heldout/warnings")
    assert event.step == 2
    assert event.tensor_proto.string_val == [b"codes\n\ndiscriminator\n\nlatents"]


def test_a_report_lacks_only_what_cannot_be_drawn(capsys):
    chosen = evals.Chosen({"own": failing}, {}, evals.Watched([]))
    values = evals.run(chosen, None, examples=1, screen=terminal.Terminal())
    assert [value.name for value in values] == ["elbo", "latents", "rate"]
    assert "warning: heldout/samples could not be drawn" in capsys.readouterr().out
