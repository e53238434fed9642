"""The command of studies: which runs it starts, how it ends, and a small study from end to end."""

import json
import os
import signal
import sys

import numpy as np
import pytest

from pipeline import study
from pipeline.outputs.studies import children, declared
from pipeline.runtime import errors, run_config
from tests.support import runs, studies
from tests.support.commands import refusal
from tests.support.processes import SCALARS, Process

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


class Started(children.Children):
    """Stands in for the processes: notes the commands, and does what `ends` says of them."""

    commands: tuple = ()
    ends: dict = {}  # noqa: RUF012 – exit codes by a part of the command; else it works

    def run(self, arguments):
        if self.asked:
            return self.code
        command = " ".join(arguments[2:])
        type(self).commands += (command,)
        for part, code in self.ends.items():
            if part in command:
                if code is signal.SIGTERM:  # to the study, whose child then saves and leaves
                    os.kill(os.getpid(), code)
                    return 75
                return code
        folder = next(text.removeprefix("--workdir=") for text in arguments if "--workdir" in text)
        if "pipeline.train" in command:
            os.makedirs(f"{folder}/checkpoints/60")
        if "pipeline.evaluate" in command:
            os.makedirs(f"{folder}/reports/60")
            with open(f"{folder}/reports/60/metrics.json", "w") as file:
                json.dump({"evaluations": ["heldout", "latents"], "left_out": {}}, file)
        return 0


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the study with stand-ins; returns its exit code and the started commands in short."""
    monkeypatch.setattr(study.children, "Children", Started)

    def run(*arguments, **ends):
        Started.commands, Started.ends = (), ends.pop("ends", {})
        path = studies.write(tmp_path)
        given = [f"--config={path}", f"--workdir={tmp_path}/out", *arguments]
        monkeypatch.setattr(sys, "argv", ["study", *given])
        code = study.main()
        short = []
        for command in Started.commands:
            module = command.split()[0].removeprefix("pipeline.")
            flags = [word for word in command.split() if word in ("--dry_run", "--page")]
            folder = next(word for word in command.split() if word.startswith("--workdir="))
            name = folder.removeprefix(f"--workdir={tmp_path}/out").strip("/")
            short.append(" ".join(word for word in (module, *flags, name) if word))
        return code, short

    return run


RUNS = [f"{method}/seed{seed}" for seed in (3, 5) for method in ("one", "two")]


def both(names):
    return [f"{command} {name}" for name in names for command in ("train", "evaluate")]


def test_runs_are_checked_then_trained_and_evaluated_in_turn_and_then_compared(run):
    assert run() == (0, ["study --dry_run", *both(RUNS), "study --page"])
    (line,) = [command for command in Started.commands if "train" in command and RUNS[0] in command]
    assert line.startswith(
        "pipeline.train --config=configs/beta_vae.py:smoke --config.model.beta=4"
    )
    assert "--config.batch_size=32 --config.seed=3 --workdir=" in line
    assert line.endswith("--distributed=off")
    (line,) = [c for c in Started.commands if "evaluate" in c and RUNS[0] in c]
    assert line.endswith("--step=latest --evals=heldout,latents --distributed=off")


def test_what_is_done_is_not_done_again(run, tmp_path):
    run()
    assert run() == (0, ["study --dry_run", "study --page"])
    (tmp_path / "out" / RUNS[1] / "reports" / "60" / "metrics.json").unlink()
    (tmp_path / "out" / RUNS[1] / "reports" / "60").rmdir()
    assert run() == (0, ["study --dry_run", f"evaluate {RUNS[1]}", "study --page"])


def test_parts_take_their_runs_and_leave_the_page(run, capsys):
    assert run("--index=0", "--of=3") == (0, ["study --dry_run", *both([RUNS[0], RUNS[3]])])
    assert "--page makes the page" in capsys.readouterr().out
    assert run("--index=1", "--of=3") == (0, ["study --dry_run", *both([RUNS[1]])])
    assert run("--index=2", "--of=3") == (0, ["study --dry_run", *both([RUNS[2]])])
    assert run() == (0, ["study --dry_run", "study --page"])


@pytest.mark.parametrize("code", [1, 2, 137])
def test_a_run_that_fails_is_named_and_the_others_go_on(run, capsys, code):
    failing = "configs/capacity_vae.py:smoke --config.batch_size=32 --config.seed=3"
    others = [*both([RUNS[0]]), f"train {RUNS[1]}", *both(RUNS[2:])]
    assert run(ends={failing: code}) == (code, ["study --dry_run", *others])
    assert f"error: {RUNS[1]} ended with exit code {code}" in capsys.readouterr().err
    assert run() == (0, ["study --dry_run", *both([RUNS[1]]), "study --page"])


@pytest.mark.parametrize(("ended", "code"), [
    (75, 75), (130, 130), (143, 75), (signal.SIGTERM, 75),
])  # fmt: skip
def test_a_stopped_run_stops_the_study_which_goes_on_there(run, capsys, ended, code):
    ends = {"pipeline.train --config=configs/capacity_vae.py": ended}
    assert run(ends=ends) == (code, ["study --dry_run", *both([RUNS[0]]), f"train {RUNS[1]}"])
    assert "Stopped at run 2 of 4: run again to go on there." in capsys.readouterr().out
    assert run() == (0, ["study --dry_run", *both(RUNS[1:]), "study --page"])


def test_nothing_is_trained_if_the_check_fails(run):
    assert run(ends={"--dry_run": 2}) == (2, ["study --dry_run"])


def test_parts_are_numbered_from_0(tmp_path):
    path = studies.write(tmp_path)
    arguments = [f"--config={path}", f"--workdir={tmp_path}", "--index=2", "--of=2"]
    with pytest.raises(errors.InputError, match="--index=2 --of=2: parts are numbered from 0 to 1"):
        study.parse(["study", *arguments])


BATCH = ("--config.batch_size=64",)  # as many as the devices of this process


def refused(tmp_path, capsys, monkeypatch, *arguments, **changes):
    path = studies.write(tmp_path, **{"overrides": BATCH} | changes)
    given = [f"--config={path}", f"--workdir={tmp_path}/out", "--dry_run", *arguments]
    return refusal(study.main, capsys, monkeypatch, *given)


def test_the_check_names_the_run_that_cannot_work(tmp_path, capsys, monkeypatch):
    line = refused(tmp_path, capsys, monkeypatch, "--config.mesh.fsdp=3")
    assert line.startswith("error: one/seed3: ") and "fsdp" in line
    line = refused(tmp_path, capsys, monkeypatch, evals=("heldout", "code_maps"))
    assert line.startswith("error: one/seed3: ") and "code_maps" in line
    assert not (tmp_path / "out").exists()


def test_a_changed_study_is_refused_for_runs_that_exist(tmp_path, capsys, monkeypatch):
    first = declared.read(studies.write(tmp_path, overrides=BATCH), tmp_path / "out").runs[1]
    settled = run_config.settled(first.config, "cpu").copy_and_resolve_references()
    runs.save_run(first.workdir, settled.unlock())
    line = refused(tmp_path, capsys, monkeypatch, overrides=("--config.batch_size=128",))
    assert line.startswith(f"error: two/seed3: --workdir={first.workdir} holds another run: ")
    assert "config.batch_size is 128, was 64" in line
    line = refused(tmp_path, capsys, monkeypatch, "--config.total_steps=1")
    assert "the run is at step 2, and config.total_steps=1" in line


def process(log, *arguments):
    return Process(log, arguments, 1, ("-m", "pipeline.study"))


# It takes a while, for twelve processes import JAX: only here do real runs follow each other.
def test_a_study_is_interrupted_and_then_completed(tmp_path):
    short = ("--config.batch_size=32", "--config.total_steps=20", SCALARS)
    given = f"--config={studies.write(tmp_path, overrides=short)}", f"--workdir={tmp_path}/out"
    stopped = process(tmp_path / "log0", *given)
    stopped.wait_for("run 1 of 4: training one/seed3")
    stopped.send_signal(signal.SIGINT)
    assert stopped.wait(timeout=120) == 130, stopped.output
    again = process(tmp_path / "log1", *given)
    assert again.wait(timeout=900) == 0, again.output
    assert again.output.rstrip().endswith(f"{tmp_path}/out/index.html")
    # Each run is a normal run, and the page has the figures of their reports.
    found = json.loads((tmp_path / "out" / "study.json").read_text())
    assert [run["run"] for run in found["runs"]] == RUNS and found["missing"] == []
    elbos = {}
    for name in RUNS:
        folder = tmp_path / "out" / name
        assert runs.committed(folder)[-1] == 20
        assert run_config.load(folder).seed == int(name[-1])
        report = json.loads((folder / "reports" / "20" / "metrics.json").read_text())
        elbos.setdefault(name.split("/")[0], []).append(report["figures"]["elbo"])
    for method, values in elbos.items():
        assert found["summaries"]["elbo"][method]["median"] == pytest.approx(np.median(values))
        assert len(set(values)) == 2
        udr = found["summaries"]["udr_spearman"][method]["values"]
        assert len(udr) == 2 and udr[0] == pytest.approx(udr[1])  # of two, each is the other's
