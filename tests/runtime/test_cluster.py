"""Commands of several processes: where they are, and what ends one process ends all."""

import subprocess
import sys

import pytest

from pipeline.runtime import cluster, errors, flags
from tests.support.processes import ROOT, free_port

PROGRAM = """
import os, signal, sys, time, types
from pipeline.runtime import cluster, errors, exit_codes

port, process, way = sys.argv[1:]
options = types.SimpleNamespace(
    distributed="auto", coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=int(process),
    join_seconds=30,
)

def command():
    with cluster.joined(options, "evaluating"):
        if process == "1" and way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if process == "1" and way == "input":
            raise errors.InputError("there is no such file")
        if process == "1" and way == "disk":
            raise OSError(28, "cannot write to /run")
        if process == "0" and way != "well":
            time.sleep(60)

exit_codes.leave(exit_codes.of(command))
"""


@pytest.mark.parametrize(
    ("way", "codes", "words"),
    [
        ("well", [0, 0], ""),
        ("killed", [1, -9], "process 1"),
        ("input", [2, 2], "evaluating: there is no such file"),
        ("disk", [1, 1], "evaluating: cannot write to /run"),
    ],
)
def test_what_ends_one_process_ends_both(way, codes, words):
    port = str(free_port())
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, port, str(process), way],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for process in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=55)[1] for process in both]
    assert [process.returncode for process in both] == codes, said
    assert words in said[0]
    assert "Traceback" not in said[0]


def options(**changes):
    return flags.Processes("auto", None, None, None, 1)._replace(**changes)


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[001-002],other",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}


@pytest.fixture
def described(monkeypatch):
    """Sets the cluster's variables, and returns what they describe."""

    def find(variables, **changes):
        for name in {*SLURM, *MPI}:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return cluster.find(options(**changes), variables)

    return find


def test_srun_and_mpirun_say_where_each_process_is(described):
    place = described(SLURM)
    assert (place.num_processes, place.process, place.local_device_ids) == (4, 3, (1,))
    assert place.coordinator.startswith("node001:")
    assert described(MPI).process == 1
    assert described({"SLURM_NTASKS": "1"}) is None
    assert described(SLURM, distributed="off") is None


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "4"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"},
        {"SLURM_NTASKS": "4(x2)"},
        {"SLURM_NTASKS": "-2"},
        {"SLURM_NTASKS": "\u0664"},
        SLURM | {"SLURM_PROCID": "4"},
        SLURM | {"SLURM_PROCID": "x"},
        SLURM | {"SLURM_LOCALID": ""},
        SLURM | {"SLURM_JOB_ID": "job"},
        SLURM | {"SLURM_STEP_NODELIST": ""},
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"OMPI_COMM_WORLD_SIZE": "many"},
        MPI | {"OMPI_COMM_WORLD_RANK": "-1"},
        MPI | {"OMPI_COMM_WORLD_RANK": "one"},
        MPI | {"OMPI_MCA_orte_hnp_uri": "?"},
    ],
    ids=str,
)
def test_a_cluster_that_is_half_described_is_one_line_with_the_way_out(described, variables):
    with pytest.raises(errors.InputError, match="--distributed=off") as raised:
        described(variables)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "coordinator", ["node1", "node1:", ":1234", "node1:0", "node1:65536", "node1:x", "node1:-1"]
)
def test_a_coordinator_that_is_no_address_is_refused(described, coordinator):
    with pytest.raises(errors.InputError, match="HOST:PORT"):
        described({}, coordinator=coordinator, num_processes=2, process_id=1)
