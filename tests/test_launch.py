"""Launchers: they start again what can go on, stop what can't, and pass signals through."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "launch"))
import local  # noqa: E402
import supervisor  # noqa: E402

# What every child below begins with. `others_ready` waits for the others' signal handlers.
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

    The processes know `index`, `start`, `folder`, and what `step()` was when they started.
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
    assert result == (134, 5)  # steps 5 and 9 are progress


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


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGINT", 130)])
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
    assert local.newest_step(tmp_path / "checkpoints") == -1
    for name in ("20", "3", "40.orbax-checkpoint-tmp", "notes"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert local.newest_step(tmp_path / "checkpoints") == 20


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


# Stands in for the training command: the first start is preempted, the second completes.
TRAIN = """
import os, pathlib, sys
folder = pathlib.Path(next(a for a in sys.argv if a.startswith("--workdir=")).partition("=")[2])
known = [a.partition("=")[2] for a in sys.argv if a.startswith(("--coord", "--num_p", "--process"))]
platform = os.environ["JAX_PLATFORMS"]
print(*known, platform, os.environ[{"cpu": "XLA_FLAGS", "cuda": "CUDA_VISIBLE_DEVICES"}[platform]])
index = known[2] if len(known) == 3 else "0"
mark = folder / f"started{index}"
started = mark.exists()
mark.touch()
sys.exit(0 if started else 75)
"""


@pytest.fixture
def pipeline(tmp_path):
    """A folder in which `python -m pipeline.train` is the stand-in."""
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").touch()
    (tmp_path / "pipeline" / "train.py").write_text(TRAIN)
    return tmp_path


def test_the_local_launcher_runs_the_training_command(pipeline):
    command = [sys.executable, str(ROOT / "launch" / "local.py"), "--processes=2", "--devices=4"]
    result = subprocess.run(
        [*command, "--", f"--workdir={pipeline}"],
        cwd=pipeline, env=os.environ | {"XLA_FLAGS": ""}, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = sorted(line.split() for line in result.stdout.splitlines())
    assert [line[0] for line in lines] == ["[0]", "[0]", "[1]", "[1]"]
    assert all(line[1].startswith("127.0.0.1:") and line[2] == "2" for line in lines)
    assert {line[5] for line in lines} == {"--xla_force_host_platform_device_count=4"}


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """`commands(name=text)` puts shell scripts on PATH; each notes its arguments in `calls`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def install(**scripts):
        for name, text in scripts.items():
            path = folder / name
            path.write_text(f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/calls\n{text}\n')
            path.chmod(0o755)

    return install


def run(script, *arguments, **variables):
    """Returns the exit code, and what the script wrote to stderr."""
    result = subprocess.run(
        ["bash", str(ROOT / "launch" / script), *arguments],
        env=os.environ | variables, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return result.returncode, result.stderr


@pytest.mark.parametrize(
    ("code", "state", "requeued"),
    [
        (75, "RUNNING", True),
        (75, "PENDING", False),  # SLURM preempted the job, and requeues it by itself
        (75, "CANCELLED", False),
        (0, "RUNNING", False),
        (1, "RUNNING", False),
        (2, "RUNNING", False),
        (130, "RUNNING", False),
        (137, "RUNNING", False),
    ],
)
def test_slurm_requeues_on_75_alone(tmp_path, commands, code, state, requeued):
    commands(srun=f"exit {code}", squeue=f"echo {state}", scontrol="")
    assert run("slurm.sbatch", "--workdir=a b", SLURM_JOB_ID="7", PYTHON="python")[0] == code
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0].endswith("python -m pipeline.train --workdir=a b")
    assert ("scontrol requeue 7" in calls) == requeued


def test_slurm_script_outlives_a_signal_until_its_tasks_end(tmp_path, commands):
    commands(srun='kill -TERM "$PPID"; exit 75', squeue="echo RUNNING", scontrol="")
    assert run("slurm.sbatch", SLURM_JOB_ID="7")[0] == 75
    assert "scontrol requeue 7" in (tmp_path / "calls").read_text()


# Stands in for gcloud: the first ssh ends with FIRST, a later one with 0.
GCLOUD = """
case "$*" in
    *describe*) echo "$STATE" ;;
    *--command=kill*) echo "${@: -1}" >> "$FOLDER/calls" ;;
    *) if mkdir "$FOLDER/began"; then eval "$DO"; exit "$FIRST"; fi ;;
esac
"""


@pytest.mark.parametrize(
    ("first", "state", "code", "trainings"),
    [
        ("75", "READY", 0, 2),
        ("75", "PREEMPTED", 75, 1),
        ("255", "", 75, 1),  # the connection broke as the TPU was taken away
        ("134", "READY", 134, 1),
        ("2", "READY", 2, 1),
    ],
)
def test_a_tpu_pod_trains_again_on_75_while_it_is_there(
    tmp_path, commands, first, state, code, trainings
):
    commands(gcloud=GCLOUD)
    variables = {"FIRST": first, "STATE": state, "DO": "", "FOLDER": str(tmp_path)}
    assert run("tpu_pod.sh", "--config=a b", TPU="pod", ZONE="z", **variables)[0] == code
    calls = (tmp_path / "calls").read_text()
    assert calls.count("-m pipeline.train --config=a\\ b") == trainings


@pytest.mark.parametrize(("name", "code"), [("TERM", 75), ("USR1", 75), ("INT", 130)])
def test_a_signal_travels_to_the_hosts_of_a_tpu_pod(tmp_path, commands, name, code):
    commands(gcloud=GCLOUD)
    do = (
        f'kill -{name} "$TPU_POD"; until grep -q "command=kill -{name}" "$FOLDER/calls"; do :; done'
    )
    variables = {"FIRST": "75", "STATE": "READY", "DO": do, "FOLDER": str(tmp_path)}
    script = f"TPU_POD=$$ exec bash {ROOT / 'launch' / 'tpu_pod.sh'}"
    result = subprocess.run(
        ["bash", "-c", script], env=os.environ | variables | {"QUEUED_RESOURCE": "q", "ZONE": "z"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == code, result.stderr
    assert (
        "queued-resources ssh q --zone=z --worker=all --node=all"
        in (tmp_path / "calls").read_text()
    )


def test_a_tpu_pod_needs_a_name_and_a_zone():
    code, err = run("tpu_pod.sh", TPU="pod")
    assert code == 2
    assert len(err.splitlines()) == 1


def test_a_gpu_node_trains_in_one_process_that_sees_all_gpus(pipeline, commands):
    commands(**{"nvidia-smi": ""})
    result = subprocess.run(
        ["bash", str(ROOT / "launch" / "gpu_node.sh"), f"--workdir={pipeline}"],
        cwd=pipeline, env=os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "0,1"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == 2 * ["[0] cuda 0,1"]  # preempted, and again


@pytest.mark.parametrize("script", ["gpu_node.sh", "tpu_pod.sh", "slurm.sbatch"])
def test_shell_scripts_parse(script):
    subprocess.run(["bash", "-n", str(ROOT / "launch" / script)], check=True)


def test_kubernetes_restarts_on_75_without_limit_and_never_on_mistakes():
    text = (ROOT / "launch" / "kubernetes" / "jobset.yaml").read_text()
    for jobset in yaml.safe_load_all(text):
        policy = jobset["spec"]["failurePolicy"]
        (replicated,) = jobset["spec"]["replicatedJobs"]
        job = replicated["template"]["spec"]

        def action(code, policy=policy, job=job):
            """What the controllers do: the Job's first rule, its message, the JobSet's first."""
            (container,) = job["template"]["spec"]["containers"]
            for index, rule in enumerate(job["podFailurePolicy"]["rules"]):
                if code in rule.get("onExitCodes", {}).get("values", []):
                    assert rule["action"] == "FailJob"
                    assert rule["onExitCodes"]["containerName"] == container["name"]
                    reason = "PodFailurePolicy"
                    message = (
                        f"Container {container['name']} for pod default/pod failed with exit code "
                        f"{code} matching FailJob rule at index {index}"
                    )
                    break
            else:
                reason, message = "BackoffLimitExceeded", "Job has reached the backoff limit"
            for rule in policy["rules"]:
                patterns = rule["onJobFailureMessagePatterns"]
                if reason in rule["onJobFailureReasons"] and any(
                    re.search(pattern, message) for pattern in patterns
                ):
                    return rule["action"]
            return "RestartJobSet"  # the default, maxRestarts times

        assert action(75) == "RestartJobSetAndIgnoreMaxRestarts"
        assert action(2) == action(130) == "FailJobSet"
        assert action(1) == action(134) == action(137) == "RestartJobSet"
        assert job["backoffLimit"] == 0
        assert job["template"]["spec"]["terminationGracePeriodSeconds"] > 25


def test_skypilot_recovers_on_75_and_runs_what_is_there():
    task = yaml.safe_load((ROOT / "launch" / "skypilot.yaml").read_text())
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    assert "launch/gpu_node.sh" in task["run"]
    subprocess.run(["bash", "-n", "-c", task["run"]], check=True)
