"""Which checkpoint of a run is chosen, and what a damaged one does to the choice."""

import jax
import pytest

from configs import beta_vae
from pipeline.outputs import saved_state
from pipeline.runtime import errors, run_config
from pipeline.training import setup
from tests.support.runs import save_run, snapshot


def saved(workdir, scores):
    config = beta_vae.get_config("smoke")
    config.model.hidden = (4,)
    save_run(workdir, config, scores)
    return [workdir / "checkpoints" / str(at + 1) / "metrics/metrics" for at in range(len(scores))]


def restored(workdir, choice="best"):
    ready = setup.prepare_evaluation(run_config.load(workdir), devices=jax.devices()[:1])
    at, state = saved_state.restore(workdir, choice, ready)
    assert int(state.step) == at
    return at


def test_damaged_figures_cost_a_warning_and_no_checkpoint(tmp_path, capsys):
    first, second = saved(tmp_path, (1.0, 2.0))
    second.write_text("")
    before = snapshot(tmp_path)
    assert restored(tmp_path) == 1
    said = "".join(capsys.readouterr())
    assert "warning: the figures of checkpoint 2 are not used: they are no JSON" in said
    assert snapshot(tmp_path) == before
    first.unlink()
    assert restored(tmp_path) == 2  # nothing says which is better, so the latest
    assert "checkpoint 1 are not used: they are missing" in "".join(capsys.readouterr())
    assert restored(tmp_path, "1") == 1


def test_no_finite_figure_is_no_best_checkpoint(tmp_path):
    saved(tmp_path, (float("nan"), float("inf")))
    line = "--step=best: no checkpoint has a finite elbo; use --step=latest or one of 1, 2"
    with pytest.raises(errors.InputError, match=line):
        restored(tmp_path)
    assert restored(tmp_path, "latest") == 2


def test_what_is_no_folder_is_no_checkpoint(tmp_path):
    saved(tmp_path, (1.0, 2.0))
    (tmp_path / "checkpoints" / "7").write_text("")
    (tmp_path / "checkpoints" / "8").symlink_to("nothing")
    assert restored(tmp_path, "latest") == 2
