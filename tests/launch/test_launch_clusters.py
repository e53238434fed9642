"""Launchers on clusters: how each of them reacts to exit codes and signals."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """`commands(name=text)` puts shell scripts on PATH; each adds its arguments to `calls`."""
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


def test_a_task_of_an_array_takes_its_part_of_a_study(tmp_path, commands):
    commands(srun="exit 75", squeue="echo RUNNING", scontrol="")
    array = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "5", "COMMAND": "study"}
    assert run("slurm.sbatch", "--workdir=a", SLURM_JOB_ID="7", PYTHON="python", **array)[0] == 75
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0].endswith("python -m pipeline.study --workdir=a --index=3 --of=5")
    assert "scontrol requeue 7" in calls


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
        ("255", "", 75, 1),  # the connection broke when the TPU was taken away
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


@pytest.mark.parametrize(
    ("name", "code"), [("TERM", 75), ("USR1", 75), ("HUP", 75), ("QUIT", 75), ("INT", 130)]
)
def test_a_signal_travels_to_the_hosts_of_a_tpu_pod(tmp_path, commands, name, code):
    commands(gcloud=GCLOUD)
    heard = f'grep -q "command=kill -{name}" "$FOLDER/calls"'
    do = f'kill -{name} "$TPU_POD"; for _ in {{1..600}}; do {heard} && break; sleep 0.05; done'
    variables = {"FIRST": "75", "STATE": "READY", "DO": do, "FOLDER": str(tmp_path)}
    script = f"TPU_POD=$$ exec bash {ROOT / 'launch' / 'tpu_pod.sh'}"
    # A shell ignores some of them for its background, and then no script can trap them.
    result = subprocess.run(
        ["env", "--default-signal=INT,HUP,QUIT", "bash", "-c", script],
        env=os.environ | variables | {"QUEUED_RESOURCE": "q", "ZONE": "z"},
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


def test_a_gpu_node_trains_in_one_process_that_sees_all_gpus(stand_in, commands):
    commands(**{"nvidia-smi": ""})
    result = subprocess.run(
        ["bash", str(ROOT / "launch" / "gpu_node.sh"), f"--workdir={stand_in}"],
        cwd=stand_in, env=os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "0,1"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == 2 * ["[0] cuda 0,1"]  # preempted twice


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
            """Applies the Job's first rule, and then the JobSet's first rule to its message."""
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
