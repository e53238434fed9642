"""The processes of a command: how they find each other, and what ends one of them ends all."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.runtime import errors, exit_codes, peers


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


def connect() -> peers.Peers:
    """Connects the processes that `initialize` joined; a process that is the only one is alone.

    Raises:
        OSError: process 0 can't be reached.
    """
    from jax._src import distributed  # its key-value store is one that all processes share already

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
    """Joins the processes for the block.

    Args:
        options: has `distributed`, `coordinator`, `num_processes` and `process_id`.
        doing: what the others are told of this process.
    """
    initialize(options)
    others = connect()
    others.doing = doing
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "JaxRuntimeError":
            others.settle()  # the sum that failed may be another process's death
        others.fail(*_said(error))
        raise
    others.leave()


def _said(error: BaseException) -> tuple[str, int]:
    """Returns the reason and the exit code for the others."""
    if isinstance(error, errors.InputError):
        return str(error), 2
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted", exit_codes.INTERRUPTED
    return f"{type(error).__name__}: {error}".split("\n")[0], exit_codes.FAULT
