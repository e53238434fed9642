"""The container file and its users: what an image holds, who runs it, and what it is told."""

import fnmatch
import json
import os
import re
import subprocess
import tomllib

import pytest
import yaml

from tests.support.processes import ROOT

LAUNCH = ROOT / "launch"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def instructions():
    """Returns the lines of the container file as (keyword, rest); continued lines are joined."""
    lines = [
        line
        for line in (LAUNCH / "Containerfile").read_text().splitlines()
        if not line.lstrip().startswith("#")
    ]
    text = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line]


FILE = instructions()
LAST = FILE[max(i for i, (word, _) in enumerate(FILE) if word == "FROM") :]


def test_the_image_is_small_and_its_user_is_a_number_other_than_root():
    assert sum(word == "FROM" for word, _ in FILE) == 2
    (user,) = (rest for word, rest in LAST if word == "USER")
    assert re.fullmatch("[1-9][0-9]*:[1-9][0-9]*", user)
    assert not [rest for word, rest in LAST if word == "RUN" and "pip" in rest]


def test_the_image_starts_the_command_that_lists_all_others():
    (entry,) = (json.loads(rest) for word, rest in LAST if word == "ENTRYPOINT")
    assert entry == ["python", "-m", "pipeline"]
    assert (ROOT / entry[-1] / "__main__.py").is_file()


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu", "mps"])
def test_a_platform_chooses_extras_that_exist_and_no_other_is_built(platform):
    (script,) = (rest for word, rest in FILE if word == "RUN" and rest.startswith("case"))
    script = script.replace("/opt/venv/bin/pip", "echo")
    result = subprocess.run(
        ["sh", "-c", script],
        env=os.environ | {"PLATFORM": platform}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    if platform == "mps":
        assert result.returncode == 2
        assert result.stderr == "error: PLATFORM=mps must be cpu, cuda or tpu\n"
        return
    assert result.returncode == 0
    (extras,) = re.findall(r"\.\[(.*)\]", result.stdout)
    assert {"gcs"} <= set(extras.split(",")) <= set(EXTRAS)
    assert len(extras.split(",")) == 1 + (platform != "cpu")


def test_whatever_is_copied_exists_and_is_sent_to_the_builder():
    lines = (LAUNCH / "Containerfile.dockerignore").read_text().splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        name
        for word, rest in FILE
        if word == "COPY" and "--from" not in rest
        for name in rest.split()[:-1]
    }
    assert "*" in lines
    assert all((ROOT / name).exists() for name in copied)
    assert {name.split("/")[0] for name in copied} == sent
    assert any(fnmatch.fnmatch("pipeline/__pycache__", line) for line in lines[1:])


def train_containers():
    for jobset in yaml.safe_load_all((LAUNCH / "kubernetes" / "jobset.yaml").read_text()):
        (job,) = jobset["spec"]["replicatedJobs"]
        pod = job["template"]["spec"]["template"]["spec"]
        yield pod, pod["containers"][0]


def test_jobsets_keep_data_runs_and_programs_in_a_bucket_and_need_no_root():
    for pod, container in train_containers():
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in container["args"])
        for name in ("config.data.path", "config.compilation_cache", "workdir"):
            assert flags[name].startswith("gs://BUCKET/")
        path, _, preset = flags["config"].partition(":")
        assert (ROOT / path).is_file()
        assert preset == "prepared"
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["serviceAccountName"]
        assert "volumes" not in pod


def test_skypilot_marks_checkpoints_by_a_file_on_its_mounted_bucket():
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert "--config.checkpoint.atomicity=commit_file" in task["run"]
    assert "--entrypoint=launch/gpu_node.sh" in task["run"]
    (mount,) = task["file_mounts"]
    assert f'--workdir="{mount}/$RUN"' in task["run"]
    assert f"--volume={mount}:{mount}" in task["run"]
    used = set(re.findall(r"\$([A-Z]+)\b", task["run"]))
    assert used == set(task["envs"])
