"""The command `train` as a user runs it: real processes, real signals, real folders."""

import json
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing import event_file_loader

from pipeline import train as command
from pipeline.display import event_files
from pipeline.runtime import allocator
from tests.support.commands import finish, start, train
from tests.support.processes import LENGTHS, SCALARS
from tests.support.runs import assert_equal_trees, committed, scalars, state

# ml_collections needs this to load a config's file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
ROOT = Path(__file__).parents[2]
TAGS_OF_THE_RUN = [
    "_hparams_/experiment",
    "_hparams_/session_end_info",
    "_hparams_/session_start_info",
    "config",
    "custom_scalars__config__",
]


def written(workdir):
    """Returns the tags of all summaries, in the order in which they were written."""
    return [
        value.tag
        for path in sorted((workdir / "tensorboard").iterdir())
        for event in event_file_loader.EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]


def tags_of_the_run(workdir):
    return sorted(tag for tag in written(workdir) if tag.startswith(event_files.OF_RUN))


@pytest.fixture
def main(monkeypatch, capfd):
    """Runs the command in this process; returns (exit code, what it wrote to stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pipeline.train", *arguments])
        return command.main(), capfd.readouterr().err

    return run


def test_memory_is_seen_to_before_the_first_thread(main, monkeypatch):
    order, start = [], threading.Thread.start
    monkeypatch.setattr(allocator, "keep_freed", lambda: order.append("memory"))
    monkeypatch.setattr(
        threading.Thread, "start", lambda thread: (order.append(thread.name), start(thread))
    )
    assert main()[0] == 2
    assert order[:2] == ["memory", "signals"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight") / "run"
    out, _ = train(workdir, "--config.total_steps=40", "--config.eval_every_steps=20", *LENGTHS)
    return workdir, out


def test_a_run_leaves_config_checkpoints_and_every_tag(straight):
    workdir, out = straight
    assert json.loads((workdir / "config.json").read_text())["total_steps"] == 40
    assert "tensorboard --logdir" in out
    assert "step 40/40" in out
    names = {tag.split("/")[1] for tag in scalars(workdir) if tag.startswith("train/")}
    assert names >= {
        "loss", "reconstruction_loss", "kl_loss", "beta", "rate", "distortion", "elbo",
        "bits_per_dim", "learning_rate", "grad_norm",
    }  # fmt: skip
    assert [step for step, _ in scalars(workdir)["heldout/elbo"]] == [20, 40]
    assert tags_of_the_run(workdir) == TAGS_OF_THE_RUN
    assert set(written(workdir)) >= {f"heldout/{name}" for name in (
        "reconstructions", "samples", "traversals", "traversals_animated"
    )}  # fmt: skip


def test_twenty_steps_and_twenty_more_equal_forty_straight_bitwise(straight, tmp_path):
    workdir = tmp_path / "run"
    figures = ["--config.eval_every_steps=20", "--config.evals=('heldout','latents')"]
    train(workdir, "--config.total_steps=20", *figures, *LENGTHS)
    train(workdir, "--config.total_steps=40", *figures)
    assert scalars(workdir) == scalars(straight[0])
    assert tags_of_the_run(workdir) == TAGS_OF_THE_RUN
    assert_equal_trees(state(workdir, 40), state(straight[0], 40))


def test_a_codebook_resumes_bitwise_and_its_collapse_is_warned_of(tmp_path):
    # Codes start from data and restart, so their random choices must resume too.
    arguments = [
        "--config.model.quantizer.init=data",
        "--config.model.quantizer.candidates=8",
        "--config.model.quantizer.restart_steps=5",
        "--config.model.quantizer.num_codes=1024",
        "--config.eval_every_steps=20",
        "--config.data.variance=0.04",
        SCALARS,
    ]
    one, other = tmp_path / "one", tmp_path / "other"
    out, _ = train(one, "--config.total_steps=40", *arguments, config="vq_vae.py:smoke")
    assert "the codebook has collapsed" in out
    train(other, "--config.total_steps=20", *arguments, config="vq_vae.py:smoke")
    train(other, "--config.total_steps=40", *arguments, config="vq_vae.py:smoke")
    assert scalars(other) == scalars(one)
    assert_equal_trees(state(other, 40), state(one, 40))
    names = {tag.split("/")[1] for tag in scalars(one) if tag.startswith("train/")}
    assert names >= {"loss", "reconstruction_loss", "vq_loss", "commitment_loss", "perplexity",
                     "codebook_usage", "code_age", "code_restarts"}  # fmt: skip
    assert scalars(one)["train/code_restarts"][-1][1] > 100


def test_a_complete_run_says_so_and_does_nothing(straight):
    before = scalars(straight[0])
    out, _ = train(straight[0], "--config.total_steps=40", "--config.eval_every_steps=20")
    assert "complete at step 40" in out
    assert scalars(straight[0]) == before


def test_another_config_is_refused_and_the_fields_are_named(straight):
    _, err = train(straight[0], "--config.batch_size=32", "--config.model.beta.end=2.0", code=2)
    assert "config.batch_size is 32, was 128" in err
    assert "config.model.beta.end is 2.0, was 1.0" in err
    assert len(err.strip().splitlines()) == 1


def stopped_at_step_5(workdir, *arguments, signals, code):
    """Starts a run, sends it the signals at its fifth step; returns at which it stopped."""
    process = start(workdir, "--config.total_steps=100000", *arguments)
    for line in process.stdout:
        if line.startswith("step 5/"):
            break
    for number in signals:
        process.send_signal(number)
    out, err = finish(process, code=code)
    assert "second signal" not in err
    return int(out.split("Stopped at step ")[1].split(",")[0])


@pytest.mark.parametrize(
    ("signals", "code"),
    [((signal.SIGTERM, signal.SIGTERM), 75), ((signal.SIGINT,), 130)],  # SLURM sends it twice
)
def test_a_signal_saves_the_step_once_and_the_same_command_resumes(tmp_path, signals, code):
    workdir = tmp_path / "run"
    every = ["--config.log_every_steps=1", SCALARS]
    stopped = stopped_at_step_5(workdir, *every, signals=signals, code=code)
    assert committed(workdir) == [stopped]
    out, _ = train(workdir, f"--config.total_steps={stopped + 2}", *every)
    assert f"{stopped:,} of {stopped + 2:,} done" in out
    assert [step for step, _ in scalars(workdir)["train/loss"]] == list(range(1, stopped + 3))


def test_a_stop_at_an_evaluation_leaves_no_gap(tmp_path):
    workdir = tmp_path / "run"
    every = ["--config.log_every_steps=1", "--config.eval_every_steps=1", SCALARS]
    stopped = stopped_at_step_5(workdir, *every, signals=(signal.SIGUSR1,), code=75)
    train(workdir, f"--config.total_steps={stopped + 2}", *every)
    for tag in ("train/loss", "heldout/elbo"):
        assert [step for step, _ in scalars(workdir)[tag]] == list(range(1, stopped + 3))
    # The first step after a start compiles, so its time must not appear on a curve of speed.
    timed = [
        step for step, _ in event_files.read_scalars(workdir / "tensorboard")["train/ms_per_step"]
    ]
    assert timed == [*range(2, stopped + 1), stopped + 2]


def test_the_kl_follows_the_capacity_up_its_ramp(tmp_path):
    # The ramp is twelve times as fast as the config's own, so it needs a larger gamma.
    faster = ["--config.model.capacity.steps=1000", "--config.model.gamma=100.0"]
    arguments = ["--config.total_steps=1000", *faster, SCALARS]
    seldom = ["--config.eval_every_steps=1000", "--config.checkpoint.every_steps=1000"]
    config = "capacity_vae.py:smoke"
    train(tmp_path / "run", *arguments, *seldom, "--config.log_every_steps=1",
          "--config.batch_size=64", config=config)  # fmt: skip
    points = scalars(tmp_path / "run")
    kl, capacity = (
        np.array(points[f"train/{name}"])[:, 1].reshape(10, 100)
        for name in ("kl_loss", "current_capacity")
    )
    assert capacity[-1, -1] > 24.9
    assert np.all(abs((kl - capacity).mean(axis=1))[1:] < 0.5)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.totl_steps=3", "config.totl_steps: the config has no such field; did you mean"),
        ("--config.total_steps=-1", "config.total_steps=-1 must be at least 1"),
        ("--config.total_steps=many", "many"),
        ("--config.seed=9223372036854775808", "config.seed=9223372036854775808 must be at most"),
        ("--config.watchdog_seconds=nan", "config.watchdog_seconds=nan must not be negative"),
        ("--config.model.hidden=(64.5,)", "config.model.hidden=(64.5,) must hold whole numbers"),
        ("--config.model.hidden=('a',)", "config.model.hidden=('a',) must hold whole numbers"),
        ("--config.evals=('heldout','heldout')", "must name each evaluation once"),
        ("--config.model.name=vae3", "'vae3' is unknown: choose one of beta_tcvae, beta_vae"),
        ("--config.data.name=cats", "'cats' is unknown: choose one of"),
        ("--config.model.likelihood=poisson", "'poisson' is unknown: choose one of bernoulli"),
        ("--config.model.network=vit", "'vit' is unknown: choose one of conv"),
        ("--config.accumulation_steps=3", "not divisible by 64 devices × 3"),
        ("--config.mesh.data=3", "does not fit 64 devices"),
        ("--config.data.path=/nowhere", "/nowhere"),
        ("--config.mesh.dat=1", "did you mean mesh.data"),
        ("--config=configs/nope.py", "configs/nope.py: there is no such file"),
        (f"--config={'x' * 300}.py", "there is no such file"),
        ("--config=configs/beta_vae.py:huge", "'huge' after the config's colon is unknown"),
        ("--confg=x", "confg"),
        ("--num_processes=2", "go together"),
        ("--config.checkpoint.best_metric=elbow", "'elbow' is unknown: choose one of"),
        ("--config.evals=('heldout','code_maps')", "'beta_vae' has no codes: take it out"),
        ("--config.evals=('samples',)", "needs 'heldout' in config.evals"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(tmp_path, main, argument, words):
    config = "beta_vae.py:mnist,smoke" if "path" in argument else "beta_vae.py:smoke"
    code, err = main(f"--config=configs/{config}", f"--workdir={tmp_path / 'run'}", argument)
    assert code == 2, err
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_misspelt_field_is_found_however_the_config_is_given(main):
    arguments = ["--config", "configs/beta_vae.py:smoke", "--workdir", "/nowhere"]
    code, err = main(*arguments, "--config.totl_steps=3")
    assert code == 2
    assert "total_steps" in err
    assert len(err.strip().splitlines()) == 1


def test_no_flags_at_all_say_what_is_needed(main):
    code, err = main()
    assert code == 2
    assert err.startswith("error: --config and --workdir are needed")


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    _, err = train(tmp_path, code=2)
    assert "holds no run" in err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_workdir_that_cannot_be_written_is_a_fault_in_one_line():
    _, err = train("/proc/run", code=1)
    assert err.startswith("error: ")
    assert "/proc/run" in err
    assert len(err.strip().splitlines()) == 1
