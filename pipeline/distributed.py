"""Processes: how they find each other, and how each learns that it was asked to stop."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from pipeline import errors

RETRY = 75  # exit code of a preempted run: the same command resumes it
INTERRUPTED = 130  # exit code after Ctrl-C, so that no launcher restarts it
REPEAT_SECONDS = 5.0  # in which a second SIGTERM or SIGUSR1 repeats the first
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Notes SIGTERM, SIGUSR1 (as SLURM sends it) and Ctrl-C; the loop asks between steps.

    Installed before the slow imports, so that a signal during start-up counts as well. A thread
    hears of signals from the C level, also while the main thread compiles or waits for a device. A
    second Ctrl-C, another signal 5 s after the first, or the end of the grace period ends the
    process at once; checkpoints commit atomically, so nothing is damaged.
    """

    def __init__(self, grace_seconds: float = 0.0) -> None:
        """Installs the handlers; `grace_seconds` may be set later, 0 is no limit."""
        self.signal: int | None = None
        self.grace_seconds = grace_seconds
        # Told why and with which code, where the grace period ends the process.
        self.on_end: Callable[[str, int], object] = lambda reason, code: None
        heard, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda number, frame: None)  # else it would end the process
        threading.Thread(target=self._watch, args=(heard,), name="signals", daemon=True).start()

    def _watch(self, heard: socket.socket) -> None:
        number = self._next(heard)
        # Before the flag is seen: the process may leave right after.
        os.write(
            2, f"{signal.Signals(number).name}: saving after this step, then leaving\n".encode()
        )
        self.signal, began = number, time.monotonic()
        heard.settimeout(0.2)  # the grace period may become known meanwhile
        while not self.grace_seconds or time.monotonic() - began < self.grace_seconds:
            try:
                number = self._next(heard)
            except TimeoutError:
                continue
            # SLURM sends SIGTERM twice, to the task and through srun; a person means it.
            if number == signal.SIGINT or time.monotonic() - began > REPEAT_SECONDS:
                os.write(2, b"second signal: leaving at once; the last checkpoint stands\n")
                os._exit(self.exit_code)
        limit = f"config.grace_seconds={self.grace_seconds:g} are over"
        os.write(2, f"{limit}: leaving at once; the last checkpoint stands\n".encode())
        self.on_end(f"{limit} there, and it left without its save", self.exit_code)
        os._exit(self.exit_code)

    def _next(self, heard: socket.socket) -> int:
        while (number := heard.recv(1)[0]) not in SIGNALS:
            pass
        return number

    @property
    def exit_code(self) -> int:
        """Exit code for this stop; also right where another process got the signal."""
        return INTERRUPTED if self.signal == signal.SIGINT else RETRY


def initialize(options: Any) -> None:
    """Joins the processes of this run; must precede every other use of JAX's devices.

    Args:
        options: of the command. `distributed` is "auto": join where a cluster is described
            (explicitly, by SLURM, Open MPI, or on a TPU VM), else run alone; or "off": run alone.
            `coordinator` is host:port of process 0, `num_processes` how many there are,
            `process_id` this one, from 0: all three or None.

    Raises:
        InputError: only some of the three are given, or values that can't be.
    """
    import jax

    coordinator, num_processes = options.coordinator, options.num_processes
    process_id, mode = options.process_id, options.distributed
    # JAX's preemption service would replace the handlers above, and miss signals of its own.
    jax.config.update("jax_enable_preemption_service", False)
    if not coordinator is num_processes is process_id is None:
        if coordinator is None or num_processes is None or process_id is None or mode == "off":
            raise errors.InputError(
                "--coordinator, --num_processes and --process_id go together, and not with "
                f"--distributed=off; got {coordinator}, {num_processes}, {process_id}"
            )
        if not (num_processes >= 1 and 0 <= process_id < num_processes):
            raise errors.InputError(
                f"--process_id={process_id} must lie in 0 … {num_processes} − 1 (--num_processes)"
            )
        jax.distributed.initialize(coordinator, num_processes, process_id)
    elif mode == "auto" and in_cluster(os.environ):
        jax.distributed.initialize()


def in_cluster(environment: Mapping[str, str]) -> bool:
    """Says whether the environment describes several processes, or a TPU VM, which may be one."""
    from jax._src import hardware_utils  # looks for TPUs on the bus: device files differ by kind

    sizes = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
    return any(int(environment.get(size) or 1) > 1 for size in sizes) or bool(
        environment.get("TPU_WORKER_HOSTNAMES")
        or hardware_utils.num_available_tpu_chips_and_device_id()[0]
    )
