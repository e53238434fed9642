"""What safety costs: leases, stop flag, verdicts, watchdog, fingerprints, digests and saves."""

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax

from pipeline.performance import timing
from pipeline.performance.bench import (
    NEVER,
    Bench,
    compiled_step,
    first_arrays,
    first_state,
    stepper,
)
from pipeline.runtime import peers, watchdog
from pipeline.runtime.processes import traits
from pipeline.training import fingerprint, run_folder, verdicts
from pipeline.training.saving import checkpoint, saved_arrays

CHECKS = 1_000  # of the folder, timed together


def measure(bench: Bench) -> dict[str, Any]:
    """Returns ratios to the bare step, and shares of the time between two saves."""
    compiled, rounds = compiled_step(bench), bench.options.rounds
    bare, num = stepper(bench, compiled)
    with tempfile.TemporaryDirectory() as name, _held(bench, Path(name) / "run") as folder:
        folder.keep(bench.ready.config)
        checkpoints = checkpoint.Checkpoints(folder.checkpoints, bench.ready.config.checkpoint)
        with watchdog.Watchdog(bench.ready.config.watchdog_seconds, peers.alone()) as watched:
            guarded = _guarded(bench, compiled, num, watched, checkpoints, folder)
            steps = timing.in_turn({"bare": bare, "guarded": guarded}, rounds=2 * rounds)
        check_ms = _ms(lambda: _checks(folder), rounds) / CHECKS
        blocked = _blocked(checkpoints, bench, rounds)
        checkpoints.close()
    # What happens once a save is shared by all steps between two saves.
    state = first_state(bench)
    digests = timing.in_turn(
        {"digests": lambda: jax.block_until_ready(saved_arrays.digests(state))}, rounds=rounds
    )
    ms = 1000 * timing.median(steps["bare"]) / num
    digest_ms = 1000 * timing.median(digests["digests"])
    between = bench.ready.config.checkpoint.every_steps * ms
    opened, config = bench.ready.opened, bench.ready.config
    added = timing.ratio(steps, "guarded", "bare")
    return {
        "lease, stop flag, verdict, watchdog and checks: step over bare step": added,
        "digests, ms": digest_ms,
        "digests, share of the time between saves": digest_ms / between,
        "all of these and digests, share of a step": added.median - 1 + digest_ms / between,
        "a check of the lease and of the folder, share of a step": check_ms / ms,
        "fingerprint of the data, ms, once a start": _ms(lambda: fingerprint.of(opened), rounds),
        "what processes compare, ms, once a start": _ms(lambda: traits.of([""], config), rounds),
        "taking and leaving the lease, ms, once a start": _ms(lambda: _taken(bench), rounds),
        "a save blocks, ms": blocked,
        "a save blocks, share of a step": blocked / ms,
        "a save blocks, share of the time between saves": blocked / between,
    }


def _guarded(
    bench: Bench,
    compiled: Any,
    num: int,
    watched: watchdog.Watchdog,
    checkpoints: checkpoint.Checkpoints,
    folder: run_folder.Folder,
) -> Callable[[], None]:
    """Returns a function that runs `num` steps, and does at each step what the loop does."""
    arrays, unread = first_arrays(bench), verdicts.Verdicts(bench.ready.config.look_every_steps)
    flags = verdicts.StopFlags(bench.ready.mesh, NEVER)

    def run() -> None:
        nonlocal arrays
        for at in range(num):
            watched.mark(f"reading data for step {at + 1}")
            watched.mark(f"running step {at + 1}", waiting=True)
            arrays, _, verdict = compiled(arrays, bench.batch, flags())
            unread.add(at + 1, verdict)
            if unread.due(at + 1):
                unread.read(at + 1, now=False)
                folder.check()
                checkpoints.check()
        jax.block_until_ready(verdict)

    return run


def _held(bench: Bench, workdir: Path) -> AbstractContextManager[run_folder.Folder]:
    """Returns the lease of `workdir`, held as by a run."""
    return run_folder.held(workdir, bench.ready, stop=NEVER, others=peers.alone())


def _checks(folder: run_folder.Folder) -> None:
    """Checks the folder `CHECKS` times, as the loop does at each look."""
    for _ in range(CHECKS):
        folder.check()


def _taken(bench: Bench) -> None:
    """Takes the lease of a new folder and leaves it."""
    with tempfile.TemporaryDirectory() as folder, _held(bench, Path(folder) / "run"):
        pass


def _ms(function: Callable[[], object], rounds: int) -> float:
    """Returns the median time of a call in ms."""
    return 1000 * timing.median(timing.in_turn({"it": function}, rounds=rounds)["it"])


def _blocked(checkpoints: checkpoint.Checkpoints, bench: Bench, rounds: int) -> float:
    """Returns the median time in ms for which `save` blocks the loop; it writes afterwards."""
    state = first_state(bench)
    milliseconds = []
    for number in range(rounds + 1):
        jax.block_until_ready(state)
        began = time.perf_counter()
        checkpoints.save(number, state, None)
        milliseconds.append(1000 * (time.perf_counter() - began))
        checkpoints.wait()
    return timing.median(milliseconds[1:])  # the first one also sets Orbax up
