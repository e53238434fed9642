"""The processes of a command: they find each other, and if one of them fails, all end."""

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline.runtime import backends, errors, exit_codes, peers
from pipeline.runtime.processes import alike, rendezvous, traits

SIZES = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
JAX_SECONDS = 120  # within which JAX connects processes that have met
# Peers miss a lost process sooner. A job may be suspended for hours, when no heart beats.
HEARTBEAT_SECONDS = 7 * 86_400
ALONE = "--distributed=off runs this process alone"


def join(options: Any, *, stopped: Callable[[], bool] = lambda: False) -> peers.Peers:
    """Joins the processes of this run; must precede every other use of JAX's devices.

    Args:
        options: of the command. With `distributed` "auto" this process joins a cluster if one is
            described (by the options, SLURM, Open MPI, or a TPU VM); with "off" it runs alone.
            `coordinator` is host:port of process 0, `num_processes` is their number, and
            `process_id` is this process, from 0. All three are given, or all are None.
            `join_seconds` is the longest wait for the others.
        stopped: says whether this process has a stop request; it then waits no longer.

    Raises:
        InputError: only some of the three are given, a value is out of range, or the cluster is
            not described well enough.
        TryAgain: a process is missing, or this one was stopped.
        OSError: process 0 cannot listen.
    """
    import jax

    # JAX's preemption service would replace the handlers of `runtime.signals`, and can miss a
    # signal.
    jax.config.update("jax_enable_preemption_service", False)
    place = find(options, os.environ)
    if place is None:
        return peers.alone()
    met = rendezvous.meet(place, seconds=options.join_seconds, stopped=stopped)
    # Until all are connected a lost process is no fault: the same command may work again.
    retry = exit_codes.RETRY
    others = peers.Peers(place.process, met, doing="connecting JAX", code_of_loss=retry)
    with _limited(others):
        jax.distributed.initialize(
            place.coordinator,
            place.num_processes,
            place.process,
            place.local_device_ids,
            # By itself process 0 listens on all addresses of its machine.
            coordinator_bind_address=place.bound,
            initialization_timeout=2 * JAX_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    others.doing, others.code_of_loss = "starting", exit_codes.FAULT
    return others


def find(options: Any, environment: Mapping[str, str]) -> rendezvous.Place | None:
    """Returns where this process is among those of its run; None if it runs alone.

    Raises:
        InputError: as `join` does.
    """
    given = options.coordinator, options.num_processes, options.process_id
    # Values that the user gives take precedence over what the environment describes.
    if all(value is None for value in given):
        if options.distributed == "off" or not in_cluster(environment):
            return None
    elif None in given or options.distributed == "off":
        raise errors.InputError(
            "--coordinator, --num_processes and --process_id go together, and not with "
            f"--distributed=off; got {', '.join(map(str, given))}"
        )
    elif not (given[1] >= 1 and 0 <= given[2] < given[1]):
        raise errors.InputError(
            f"--process_id={given[2]} must lie in 0 … {given[1]} − 1 (--num_processes)"
        )
    return _detected(given, environment, seconds=options.join_seconds)


def in_cluster(environment: Mapping[str, str]) -> bool:
    """Says whether the environment describes several processes or a TPU VM.

    A TPU VM counts even if it is the only one.

    Raises:
        InputError: a variable of the cluster holds no number.
    """
    # It finds TPUs on the PCI bus; the names of their device files differ between generations.
    from jax._src import hardware_utils

    for size in filter(environment.get, SIZES):
        if not re.fullmatch("[0-9]{1,9}", environment[size]):
            raise errors.InputError(
                f"{size}={environment[size]!r} is no number of processes: start them with srun or "
                f"mpirun; {ALONE}"
            )
    return any(int(environment.get(size) or 1) > 1 for size in SIZES) or bool(
        environment.get("TPU_WORKER_HOSTNAMES")
        or hardware_utils.num_available_tpu_chips_and_device_id()[0]
    )


def _detected(
    given: tuple[Any, ...], environment: Mapping[str, str], *, seconds: int
) -> rendezvous.Place:
    """Returns the place, whose missing parts JAX finds in the environment."""
    from jax._src import clusters

    size = next((f"{size}={environment[size]}" for size in SIZES if environment.get(size)), "")
    about = f"{size or 'the environment'} describes a cluster"
    try:
        found = clusters.ClusterEnv.auto_detect_unset_distributed_params(
            coordinator_address=given[0],
            num_processes=given[1],
            process_id=given[2],
            local_device_ids=None,
            cluster_detection_method=None,
            initialization_timeout=seconds,
        )
    except Exception as error:  # whatever the variables hold
        reason = f"{type(error).__name__}: {error}"
        raise errors.InputError(f"{about}, but not well ({reason}); {ALONE}") from None
    coordinator, num, process, local = found
    coordinator = coordinator or environment.get("JAX_COORDINATOR_ADDRESS")
    if coordinator is None or num is None or process is None:
        raise errors.InputError(
            f"{about}, but not where its processes are: start all with srun or mpirun, or give "
            f"--coordinator, --num_processes and --process_id; {ALONE}"
        )
    host, _, port = coordinator.rpartition(":")
    if not (host and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        source = "--coordinator" if given[0] is not None else f"{about}, but its coordinator"
        raise errors.InputError(
            f"{source}={coordinator} must be HOST:PORT of process 0, as node1:1234; {ALONE}"
        )
    if not 0 <= process < num:
        raise errors.InputError(
            f"{about}, in which this would be process {process} of {num}; {ALONE}"
        )
    if environment.get("JAX_LOCAL_DEVICE_IDS"):  # JAX reads it itself
        local = None
    return rendezvous.Place(coordinator, num, process, None if local is None else tuple(local))


@contextlib.contextmanager
def _limited(others: peers.Peers) -> Iterator[None]:
    """Ends the process if the block takes too long; JAX itself would abort with a stack."""

    def give_up() -> None:
        text = f"JAX did not connect the processes within {JAX_SECONDS} s"
        others.fail(text, exit_codes.RETRY)
        errors.say(f"error: {text}")
        os._exit(exit_codes.RETRY)

    timer = threading.Timer(JAX_SECONDS, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def joined(options: Any, doing: str) -> Iterator[None]:
    """Joins the processes for the block; if it raises, the other processes end, too.

    Args:
        options: has `distributed`, `coordinator`, `num_processes`, `process_id`, `join_seconds`.
        doing: what this process does, for the other processes' error lines.
    """
    others = join(options)
    others.doing = doing
    try:
        backends.devices()
        if others.exist:
            alike.check(traits.of(sys.argv), others)
        yield
    except BaseException as error:
        others.settle(error)
        others.fail(*_said(error))
        raise
    others.leave()


def _said(error: BaseException) -> tuple[str, int]:
    """Returns the reason and the exit code for the others."""
    if isinstance(error, errors.InputError):
        return str(error), exit_codes.MISTAKE
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted", exit_codes.INTERRUPTED
    return errors.reason(error), exit_codes.FAULT
