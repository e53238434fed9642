"""Lost machines, with real processes and real signals: the same command resumes."""

import re
import signal
import time

import numpy as np
import pytest

from pipeline.runtime import signals
from tests.support.processes import codes, start, train
from tests.support.runs import assert_equal_trees, committed, scalars, state

FOREVER = ("--config.total_steps=100000", "--config.log_every_steps=1")
# Runs before the command: the fault of this process.
FAILING = """
import os, sys, time
from pipeline.training import batching
from pipeline.training.saving import checkpoint
original = batching.ahead
def batches(*arguments, **options):
    for number, batch in enumerate(original(*arguments, **options)):
        if number == 5:
            {fault}
        yield batch
batching.ahead = batches
from pipeline import train
code = train.main()
os._exit(code)
"""
KILLED = """
import os, signal
def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
{when}
from pipeline import train
os._exit(train.main())
"""
WHEN = {
    "as it starts": "die()",
    "after all have met": "import jax; jax.distributed.initialize = die",
}
UNREADABLE = """
import os
import orbax.checkpoint as ocp
original = ocp.Checkpointer.restore
def restore(self, directory, *arguments, **options):
    if directory.parent.name == "20":
        raise OSError("a disk of this host")
    return original(self, directory, *arguments, **options)
ocp.Checkpointer.restore = restore
from pipeline import train
os._exit(train.main())
"""


def in_save(fault):
    """Returns a command in which each save does this instead."""
    do = f"from pipeline.training.saving import checkpoint\ndef save(*arguments):\n    {fault}\n"
    return ("-c", KILLED.format(when=f"{do}checkpoint.Checkpoints.save = save"))


def failing(fault):
    return ("-c", FAILING.format(fault=fault))


def test_a_signal_during_import_ends_the_start_before_it_compiles(tmp_path):
    workdir = tmp_path / "run"
    (process,) = start(workdir, *FOREVER)
    process.wait_until_it_handles(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert codes([process]) == [75]
    assert "step 1/" not in process.output
    assert "step 2/2" in train(workdir, "--config.total_steps=2", "--config.log_every_steps=1")


def test_a_signal_during_compilation_stops_all_at_one_step(tmp_path):
    workdir = tmp_path / "run"
    processes = start(workdir, *FOREVER, processes=2)
    processes[0].wait_for("start-up:")
    processes[1].send_signal(signal.SIGUSR1)
    assert codes(processes) == [75, 75]
    at = committed(workdir)
    said = f"Stopped at step {at[0]}," if at else "Stopped before step 1:"
    assert len(at) <= 1 and said in processes[0].output


def test_a_signal_in_the_last_step_lets_the_run_complete(tmp_path):
    workdir = tmp_path / "run"
    (process,) = start(workdir, "--config.total_steps=20", "--config.log_every_steps=19")
    process.wait_for("step 19/20")
    process.send_signal(signal.SIGTERM)
    assert codes([process])[0] in (0, 75)
    train(workdir, "--config.total_steps=20", "--config.log_every_steps=19")
    assert committed(workdir)[-1] == 20


def test_the_grace_period_ends_a_process_that_hangs(tmp_path):
    (process,) = start(
        tmp_path / "run",
        *FOREVER,
        "--config.grace_seconds=1",
        command=failing("time.sleep(60)"),
    )
    process.wait_for("step 4/")
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert codes([process]) == [75]
    assert time.monotonic() - began < 30
    assert "config.grace_seconds=1 are over" in process.output


def test_the_end_of_one_processs_grace_period_ends_all_to_be_run_again(tmp_path):
    command = {1: failing("time.sleep(60)")}
    grace = "--config.grace_seconds=2"
    processes = start(tmp_path / "run", *FOREVER, grace, processes=2, command=command)
    processes[0].wait_for("step 4/")
    processes[1].send_signal(signal.SIGTERM)
    assert codes(processes) == [75, 75]
    output = processes[0].output
    assert "process 1 on " in output and "grace_seconds=2 are over" in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_second_signal_to_one_process_ends_all_with_its_code(tmp_path, number, code):
    # Process 0 holds JAX's service, so the other one must leave before it.
    command = {1: failing("time.sleep(60)")}
    processes = start(tmp_path / "run", *FOREVER, processes=2, command=command)
    processes[0].wait_for("step 4/")
    processes[0].send_signal(number)
    processes[0].wait_for("saving after")
    time.sleep(0.0 if number == signal.SIGINT else signals.REPEAT_SECONDS)
    processes[0].send_signal(number)
    assert codes(processes) == [code, code]
    (line,) = [line for line in processes[1].output.splitlines() if "error: " in line]
    assert line.startswith("error: process 0 on ") and "a second signal came there" in line
    assert "Terminating process" not in processes[1].output


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_killed_before_all_are_connected_is_named_and_may_come_again(
    tmp_path, when, lost
):
    command = {lost: ("-c", KILLED.format(when=WHEN[when]))}
    processes = start(tmp_path / "run", "--join_seconds=4", processes=2, command=command)
    began = time.monotonic()
    assert codes(processes)[1 - lost] == 75
    assert time.monotonic() - began < 30
    last = processes[1 - lost].output.strip().splitlines()[-1]
    assert last.startswith(f"error: process {lost} ")
    assert "Traceback" not in processes[1 - lost].output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("process", "number", "code"), [(0, signal.SIGTERM, 75), (1, signal.SIGINT, 130)]
)
def test_a_signal_while_waiting_for_the_others_ends_the_wait(tmp_path, process, number, code):
    command = {1 - process: ("-c", "pass")}
    processes = start(tmp_path / "run", processes=2, command=command)
    waiting = processes[process]
    waiting.wait_for("waiting (up to --join_seconds=55)")
    began = time.monotonic()
    waiting.send_signal(number)
    assert codes(processes)[process] == code
    assert time.monotonic() - began < 5
    assert "error: stopped before the run began: process" in waiting.output


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The run that is never interrupted."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    train(workdir, "--config.total_steps=40", "--config.log_every_steps=1")
    return workdir


@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_is_named_and_the_run_goes_on_elsewhere(tmp_path, straight, lost):
    workdir = tmp_path / "run"
    arguments = ("--config.log_every_steps=1", "--config.total_steps=40")
    slowly = {1 - lost: failing("time.sleep(1)"), lost: failing("time.sleep(1)")}
    every = "--config.checkpoint.every_steps=3"
    processes = start(workdir, *arguments, every, processes=2, command=slowly)
    processes[0].wait_for("step 5/")
    processes[lost].kill()
    began = time.monotonic()
    found = codes(processes)
    assert time.monotonic() - began < 30
    assert found[lost] == -signal.SIGKILL and found[1 - lost] == 1
    assert f"error: process {lost} on " in processes[1 - lost].output
    if lost:
        return
    # Another topology sees the same examples after the last checkpoint, so the same losses.
    train(workdir, *arguments, devices=4)
    resumed, expected = scalars(workdir), scalars(straight)
    for tag in ("train/loss", "train/kl_loss", "train/beta", "train/learning_rate", "heldout/elbo"):
        np.testing.assert_allclose(resumed[tag], expected[tag], rtol=1e-5, err_msg=tag)


def test_an_exception_in_one_process_ends_all_and_says_which(tmp_path):
    command = {1: failing('raise RuntimeError("a bad disk")')}
    processes = start(tmp_path / "run", *FOREVER, processes=2, command=command)
    assert codes(processes) == [1, 1]
    output = processes[1].output
    assert output.index("Traceback") < output.index("error: RuntimeError: a bad disk")
    last = processes[0].output.strip().splitlines()[-1]
    assert last.startswith("error: process 1 on ") and last.endswith("RuntimeError: a bad disk")


def test_a_process_that_stalls_is_named_with_its_step_and_stacks(tmp_path):
    command = {1: failing("time.sleep(60)")}
    limit = "--config.watchdog_seconds=6"
    processes = start(tmp_path / "run", *FOREVER, limit, processes=2, command=command)
    assert codes(processes) == [75, 75]
    output = processes[1].output
    assert re.search(r"reading data for step 6 made no progress for \d+ s", output), output
    assert "in batches" in output.split("threads")[1]
    assert "reading data for step 6: no progress" in processes[0].output


def test_a_process_killed_during_a_save_is_named_and_no_error_that_follows_from_it(tmp_path):
    command = {0: in_save('raise ValueError("connection closed by peer")'), 1: in_save("die()")}
    processes = start(tmp_path / "run", *FOREVER, processes=2, command=command)
    assert codes(processes) == [1, -signal.SIGKILL]
    last = processes[0].output.strip().splitlines()[-1]
    assert last.startswith("error: process 1 on ") and "was lost" in last
    assert "Traceback" not in processes[0].output


def test_what_one_process_cannot_read_none_takes(tmp_path):
    workdir = tmp_path / "run"
    train(workdir, "--config.total_steps=20", "--config.checkpoint.every_steps=10")
    command = {1: ("-c", UNREADABLE)}
    train(workdir, "--config.total_steps=22", processes=2, command=command)
    assert (workdir / "checkpoints" / "damaged-20").is_dir()
    points = [at for at, _ in scalars(workdir)["train/loss"]]
    assert points == [10, 20, 22]


def test_stopped_and_resumed_on_one_topology_is_bitwise_the_run_never_stopped(tmp_path, straight):
    workdir = tmp_path / "run"
    arguments = ("--config.log_every_steps=1", "--config.total_steps=40")
    (process,) = start(workdir, *arguments, command=failing("time.sleep(1)"))
    process.wait_for("step 4/")
    process.send_signal(signal.SIGTERM)
    assert codes([process]) == [75]
    train(workdir, *arguments)
    assert scalars(workdir) == scalars(straight)
    assert_equal_trees(state(workdir, 40), state(straight, 40))
