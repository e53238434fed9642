"""Runs of several real processes, for tests: they start, wait for a line, hurt and collect."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.support.environment import xla_flags

ROOT = Path(__file__).parents[2]
COMMAND = ("-m", "pipeline.train")
# A run that is prolonged must do what a longer one did from the start.
LENGTHS = (
    "--config.model.beta.steps=5000",
    "--config.optimizer.decay_steps=5000",
    "--config.optimizer.warmup_steps=100",
)
SCALARS = "--config.evals=('heldout',)"  # no pictures, because every process would compile them


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process(subprocess.Popen):
    """One process of a run. Its output goes to a file, so that it never waits for a reader."""

    def __init__(self, log, arguments, devices, command, silent=False):
        self.log = Path(log)
        environment = os.environ | {
            "XLA_FLAGS": xla_flags(devices),
            "NPROC": "4",  # the size of the thread pool, on which the last bits depend
            "PYTHONUNBUFFERED": "1",
        }
        with self.log.open("w") as output:
            super().__init__(
                [sys.executable, *command, *arguments],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE if silent else output,
                stderr=output,
            )
        if silent:
            self.stdout.close()  # what is printed has no reader

    @property
    def output(self):
        return self.log.read_text()

    def wait_for(self, text, timeout=90.0):
        """Waits until `text` is printed; fails if the process ends before."""
        end = time.monotonic() + timeout
        while text not in self.output:
            assert self.poll() is None and time.monotonic() < end, self.output
            time.sleep(0.01)

    def wait_until_it_handles(self, number, timeout=120.0):
        """Waits until the process has installed its handler for the signal, or has ended."""
        end = time.monotonic() + timeout
        while self.poll() is None:  # one that has ended shows no handlers any more
            assert time.monotonic() < end, "no handler was installed"
            status = Path(f"/proc/{self.pid}/status").read_text()
            caught = int(status.split("SigCgt:")[1].split()[0], 16)
            if caught >> (number - 1) & 1:
                return
            time.sleep(0.005)


def start(
    workdir,
    *arguments,
    processes=1,
    devices=1,
    config="beta_vae.py:smoke",
    command=COMMAND,
    logs=None,
    silent=False,
):
    """Starts a run; `command` may differ by process: {process: command}.

    Logs go to the folder `logs`, or beside the workdir. If the run is silent, nobody reads its
    stdout, and the logs hold only stderr.
    """
    logs = logs or workdir.parent
    logs.mkdir(exist_ok=True)
    port, number = free_port(), len(list(logs.glob("log*")))
    started = []
    arguments = (SCALARS, *(LENGTHS if config.startswith("beta_vae") else ()), *arguments)
    for process in range(processes):
        one = command.get(process, COMMAND) if isinstance(command, dict) else command
        flags = [f"--config=configs/{config}", f"--workdir={workdir}", *arguments]
        if processes > 1:
            flags += [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}"]
            flags += [f"--process_id={process}"]
        log = logs / f"log{number}.{process}"
        started.append(Process(log, flags, devices, one, silent))
    return started


def codes(processes, timeout=90.0):
    """Waits for all, and returns their exit codes."""
    end = time.monotonic() + timeout
    try:
        return [process.wait(max(0.1, end - time.monotonic())) for process in processes]
    except subprocess.TimeoutExpired:
        raise AssertionError([process.output for process in processes]) from None
    finally:
        for process in processes:
            process.kill()
            process.wait()


def train(workdir, *arguments, **options):
    """Runs to the end and requires success; returns what process 0 printed."""
    processes = start(workdir, *arguments, **options)
    found = codes(processes)
    assert set(found) == {0}, (found, *(process.output for process in processes))
    return processes[0].output
