"""The processes of a command: they find each other, and if one of them fails, all end."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.runtime import errors, exit_codes, peers


def initialize(options: Any) -> None:
    """Joins the processes of this run; must precede every other use of JAX's devices.

    Args:
        options: of the command. With `distributed` "auto" this process joins a cluster if one is
            described (by the options, SLURM, Open MPI, or a TPU VM); with "off" it runs alone.
            `coordinator` is host:port of process 0, `num_processes` is their number, and
            `process_id` is this process, from 0. All three are given, or all are None.

    Raises:
        InputError: only some of the three are given, or a value is out of range.
    """
    import jax

    coordinator, num_processes = options.coordinator, options.num_processes
    process_id, mode = options.process_id, options.distributed
    # JAX's preemption service would replace the handlers of `runtime.signals`, and can miss a
    # signal.
    jax.config.update("jax_enable_preemption_service", False)
    # Values that the user gives take precedence over what the environment describes.
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
    """Says whether the environment describes several processes or a TPU VM.

    A TPU VM counts even if it is the only one.
    """
    # It finds TPUs on the PCI bus; the names of their device files differ between generations.
    from jax._src import hardware_utils

    sizes = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
    return any(int(environment.get(size) or 1) > 1 for size in sizes) or bool(
        environment.get("TPU_WORKER_HOSTNAMES")
        or hardware_utils.num_available_tpu_chips_and_device_id()[0]
    )


def connect() -> peers.Peers:
    """Connects the processes that `initialize` joined; does nothing for a single process.

    Raises:
        OSError: process 0 cannot be reached.
    """
    from jax._src import distributed  # all processes already share its key-value store

    shared = distributed.global_state
    if shared.client is None or shared.num_processes == 1:
        return peers.alone()
    return peers.connect(
        shared.client,
        process=shared.process_id,
        num_processes=shared.num_processes,
        coordinator=str(shared.coordinator_address),
    )


@contextlib.contextmanager
def joined(options: Any, doing: str) -> Iterator[None]:
    """Joins the processes for the block; if it raises, the other processes end, too.

    Args:
        options: has `distributed`, `coordinator`, `num_processes` and `process_id`.
        doing: what this process does, for the other processes' error lines.
    """
    initialize(options)
    others = connect()
    others.doing = doing
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "JaxRuntimeError":
            others.settle()  # a collective also fails if another process died
        others.fail(*_said(error))
        raise
    others.leave()


def _said(error: BaseException) -> tuple[str, int]:
    """Returns the reason and the exit code for the others."""
    if isinstance(error, errors.InputError):
        return str(error), exit_codes.MISTAKE
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted", exit_codes.INTERRUPTED
    return f"{type(error).__name__}: {error}".split("\n")[0], exit_codes.FAULT
