"""Launchers restart what can continue, stop what cannot, and forward signals."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "launch"))
import local  # noqa: E402
import supervisor  # noqa: E402

# The first lines of every child below. `others_ready` waits for the others' signal handlers.
PRELUDE = """
import os, pathlib, signal, sys, time
index, start, step = map(int, sys.argv[1:4])
folder = pathlib.Path(sys.argv[4])
def ready():
    (folder / f"ready{start}-{index}").touch()
def others_ready(count):
    while len(list(folder.glob(f"ready{start}-*"))) < count:
        time.sleep(0.01)
def note(text):
    with open(folder / "notes", "a") as file:
        file.write(f"{index} {text}\\n")
"""


def supervise(
    folder, code, *, processes=1, failures=2, grace=30.0, chaos=None, progress=None, step=int
):
    """Runs `code` as a group; returns the exit code and the number of starts.

    The code may use `index`, `start`, `folder`, and the value of `step()` at its start.
    """
    starts = []

    def start():
        starts.append(len(starts))
        program = [sys.executable, "-S", "-c", PRELUDE + textwrap.dedent(code)]
        numbers = [[str(index), str(starts[-1]), str(step())] for index in range(processes)]
        return [supervisor.Command([*program, *n, str(folder)], os.environ) for n in numbers]

    result = supervisor.supervise(
        start,
        progress=progress or (lambda: -1),
        max_failures=failures,
        grace_seconds=grace,
        chaos=chaos or supervisor.Chaos(0.0, faults=0, seed=0),
    )
    return result, len(starts)


def test_exit_code_75_starts_again_without_limit(tmp_path):
    assert supervise(tmp_path, "sys.exit(75 if start < 6 else 0)", failures=0) == (0, 7)


def test_failures_without_progress_end_with_their_exit_code(tmp_path):
    assert supervise(tmp_path, "sys.exit(1)", failures=2) == (1, 3)


def test_a_new_checkpoint_makes_failures_count_from_the_beginning(tmp_path):
    steps = iter([-1, 5, 5, 9, 9, 9, 9])
    result = supervise(tmp_path, "sys.exit(134)", failures=1, progress=lambda: next(steps))
    assert result == (134, 5)  # steps 5 and 9 count as progress


@pytest.mark.parametrize("code", [2, 130])
def test_a_mistake_and_ctrl_c_never_start_again(tmp_path, code):
    group = f"sys.exit({code} if index == 1 else 1)"
    assert supervise(tmp_path, group, processes=3) == (code, 1)


def test_a_failure_among_exits_with_75_counts_as_a_failure(tmp_path):
    code = "sys.exit(3 if index else 75)"
    assert supervise(tmp_path, code, processes=2, failures=0) == (3, 1)


def test_a_signal_before_python_listens_is_a_preemption(tmp_path):
    code = "os.kill(os.getpid(), signal.SIGTERM) if start < 2 else None"
    assert supervise(tmp_path, code, failures=0) == (0, 3)


def test_what_outlives_the_grace_time_is_killed_and_does_not_hide_the_cause(tmp_path):
    code = """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if index == 0:
        sys.exit(7)
    time.sleep(60)
    """
    began = time.monotonic()
    assert supervise(tmp_path, code, processes=3, failures=0, grace=0.2) == (7, 1)
    assert time.monotonic() - began < 10


def test_a_group_that_ends_a_little_apart_is_left_alone(tmp_path):
    code = """
    if index == 1:
        others_ready(1)
        note("ended by itself")
    ready()
    """
    assert supervise(tmp_path, code, processes=2, grace=0.0) == (0, 1)
    assert (tmp_path / "notes").read_text() == "1 ended by itself\n"


@pytest.mark.parametrize(
    ("name", "code"),
    [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGHUP", 75), ("SIGQUIT", 75), ("SIGINT", 130)],
)
@pytest.mark.usefixtures("signals_of_terminals")
def test_a_signal_reaches_every_process_and_nothing_starts_again(tmp_path, name, code):
    group = f"""
    def stop(number, frame):
        note(signal.Signals(number).name)
        sys.exit(75)
    signal.signal(signal.{name}, stop)
    ready()
    if index == 0:
        others_ready(2)
        os.kill(os.getppid(), signal.{name})
    while True:
        signal.pause()
    """
    assert supervise(tmp_path, group, processes=2) == (code, 1)
    assert sorted((tmp_path / "notes").read_text().split("\n")) == ["", f"0 {name}", f"1 {name}"]


def test_a_second_signal_is_forwarded_too(tmp_path):
    group = """
    def second(number, frame):
        os._exit(75)
    def first(number, frame):
        signal.signal(signal.SIGTERM, second)
        os.kill(os.getppid(), signal.SIGTERM)
    signal.signal(signal.SIGTERM, first)
    os.kill(os.getppid(), signal.SIGTERM)
    while True:
        time.sleep(60)
    """
    assert supervise(tmp_path, group) == (75, 1)


def test_processes_that_ignore_a_signal_are_killed_after_the_grace_time(tmp_path):
    group = """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)
    """
    assert supervise(tmp_path, group, grace=0.2) == (75, 1)


def test_handlers_of_signals_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    supervise(tmp_path, "")
    assert signal.getsignal(signal.SIGTERM) is before


def test_chaos_strikes_so_often_and_its_failures_are_not_counted(tmp_path, capsys):
    chaos = supervisor.Chaos(0.02, faults=6, seed=3)
    code = "time.sleep(60 if step < 6 else 0)"
    faults = lambda: sum(chaos.sent.values())  # noqa: E731
    result, starts = supervise(tmp_path, code, failures=0, chaos=chaos, step=faults)
    assert result == 0
    assert faults() == 6
    assert starts > 1
    assert min(chaos.sent.values()) > 0
    table = [line.split() for line in capsys.readouterr().err.splitlines()[-4:]]
    assert [row[1:3] for row in table[:2]] == [["faults", "SIGKILL"], ["faults", "SIGTERM"]]
    assert [int(row[3]) for row in table[:2]] == list(chaos.sent.values())
    assert sum(int(row[-1]) for row in table[2:]) == starts - 1


def test_lines_bear_the_number_of_their_process(tmp_path, capsys):
    supervise(tmp_path, "print('out'); print('err', file=sys.stderr)", processes=2)
    out, err = capsys.readouterr()
    assert sorted(out.splitlines()) == ["[0] out", "[1] out"]
    assert {"[0] err", "[1] err"} <= set(err.splitlines())


def test_progress_is_the_newest_folder_that_is_a_number(tmp_path):
    assert local.newest_step(str(tmp_path)) == -1
    for name in ("20", "3", "40.orbax-checkpoint-tmp", "notes"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert local.newest_step(str(tmp_path)) == 20


def test_environments_give_each_process_its_devices():
    options, _ = local.parse(["--processes=2", "--devices=3", "--", "--workdir", "x"])
    flags = local.environment(options, 1, {"XLA_FLAGS": "--a=b"})["XLA_FLAGS"]
    assert flags == "--a=b --xla_force_host_platform_device_count=3"
    gpus = ["--processes=2", "--platform=cuda", "--devices=2", "--", "--workdir=x"]
    options, _ = local.parse(gpus)
    visible = {"CUDA_VISIBLE_DEVICES": "7,5,3,1"}
    assert local.environment(options, 1, {})["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert local.environment(options, 1, visible)["CUDA_VISIBLE_DEVICES"] == "3,1"
    options, _ = local.parse(["--platform=cuda", "--", "--workdir=x"])
    assert local.environment(options, 0, visible) == {
        **visible, "JAX_PLATFORMS": "cuda", "PYTHONUNBUFFERED": "1"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--processes=2"], "--workdir is missing"),
        (["--processes=0", "--", "--workdir=x"], "--processes=0"),
        (["--processes=2", "--platform=cuda", "--", "--workdir=x"], "--devices=0"),
        (["--processes=2", "--platform=tpu", "--", "--workdir=x"], "--platform=tpu"),
    ],
)
def test_a_mistake_of_the_launcher_is_one_line_with_exit_code_2(arguments, words, capsys):
    with pytest.raises(SystemExit) as raised:
        local.parse(arguments)
    assert raised.value.code == 2
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 1


def test_the_local_launcher_runs_the_training_command(stand_in):
    command = [sys.executable, str(ROOT / "launch" / "local.py"), "--processes=2", "--devices=4"]
    result = subprocess.run(
        [*command, "--", f"--workdir={stand_in}"],
        cwd=stand_in, env=os.environ | {"XLA_FLAGS": ""}, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = sorted(line.split() for line in result.stdout.splitlines())
    assert [line[0] for line in lines] == ["[0]", "[0]", "[1]", "[1]"]
    assert all(line[1].startswith("127.0.0.1:") and line[2] == "2" for line in lines)
    assert {line[5] for line in lines} == {"--xla_force_host_platform_device_count=4"}


def test_a_launcher_whose_log_cannot_be_written_goes_on(stand_in):
    command = [sys.executable, str(ROOT / "launch" / "local.py"), "--", f"--workdir={stand_in}"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            command, cwd=stand_in, env=os.environ | {"XLA_FLAGS": ""}, stdout=full, stderr=full,
            timeout=60,
        )  # fmt: skip
    assert result.returncode == 0
    assert (stand_in / "started0").exists()
