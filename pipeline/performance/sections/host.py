"""The host's work in a step, by part: CPU time of the thread that runs the loop.

The parts run in the order of the loop, with fresh batches, while the devices work. On CPUs that
matters: a step fills the caches, so the same code takes up to seven times as long as without steps.
"""

import collections
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from pipeline.display import tensorboard, terminal
from pipeline.performance import timing
from pipeline.performance.bench import NEVER, Bench, compiled_step, first_state, stepper
from pipeline.runtime import errors, peers, watchdog
from pipeline.training import (
    batching,
    dispatch,
    run_folder,
    verdicts,
)
from pipeline.training.logged import clock, points, tracing
from pipeline.training.saving import checkpoint


class Parts:
    """Adds up the CPU time of this thread by the part of a step in which it was spent."""

    def __init__(self) -> None:
        """Starts the first part."""
        self.seconds: collections.defaultdict[str, float] = collections.defaultdict(float)
        self._since = time.thread_time()

    def end(self, part: str) -> None:
        """Adds the time since the end of the part before to `part`."""
        now = time.thread_time()
        self.seconds[part] += now - self._since
        self._since = now


def measure(bench: Bench) -> dict[str, Any]:
    """Returns µs a step by part: the mean over the steps of a round, the median over rounds.

    Steps that evaluate or save are not among them; sections `safety` and `loop` have those.
    """
    _, few = stepper(bench, compiled_step(bench))
    num = max(few, 2 * bench.ready.config.log_every_steps)
    rounds = []
    with contextlib.ExitStack() as opened:
        host = Host(bench, opened)
        opened.callback(host.close)
        host.take(num, Parts())  # the first round compiles
        for _ in range(bench.options.rounds):
            parts = Parts()
            taken = host.take(num, parts)
            rounds.append({name: 1e6 * each / taken for name, each in parts.seconds.items()})
    figures = {f"{name}, µs": timing.median([one[name] for one in rounds]) for name in rounds[0]}
    return figures | {
        "all, µs a step": timing.median([sum(one.values()) for one in rounds]),
        "steps from one look to the next": bench.ready.config.look_every_steps,
    }


class Host:
    """What the loop holds while it takes steps."""

    def __init__(self, bench: Bench, opened: contextlib.ExitStack):
        """Opens a run in a temporary folder, which `opened` closes; compiles nothing yet."""
        ready, config, enter = bench.ready, bench.ready.config, opened.enter_context
        alone: dict[str, Any] = {"stop": NEVER, "others": peers.alone()}
        path = Path(enter(tempfile.TemporaryDirectory())) / "run"
        self._folder = enter(run_folder.held(path, ready, **alone))
        self._folder.keep(config)
        self._checkpoints = enter(checkpoint.Checkpoints(path / "checkpoints", config.checkpoint))
        self._watched = enter(watchdog.Watchdog(config.watchdog_seconds, alone["others"]))
        writer = enter(tensorboard.Writer(path / "tensorboard", resume_step=None))
        self._progress = enter(terminal.Terminal(active=False).progress(config.total_steps))
        self._speed = clock.Clock(config.batch_size)
        self._logged = points.Points(config.log_every_steps, writer, self._progress, self._speed)
        self._take_steps = dispatch.Dispatcher(config, ready.example, ready.mesh)
        self._arrays = self._take_steps.arrays(first_state(bench))
        self._batches = batching.ahead(ready.opened.train, config, ready.mesh, first_step=0)
        self._stop_flags = verdicts.StopFlags(ready.mesh, NEVER)
        self._unread = verdicts.Verdicts(config.look_every_steps)
        self._traced = tracing.Tracing(path, wanted=False, active=True, note=errors.say)
        self._at, self._last = 0, config.total_steps
        self._verdict: jax.Array | None = None

    def take(self, num: int, parts: Parts) -> int:
        """Does the host's work of `num` steps, or a few more; returns how many they were."""
        first = self._at
        while self._at < first + num:
            self._launch(parts)
            # As in the loop, most steps end here.
            is_logged = self._logged.due(self._at)
            if is_logged or self._unread.due(self._at):
                self._look(parts, is_logged=is_logged)
        return self._at - first

    def close(self) -> None:
        """Waits for the devices."""
        jax.block_until_ready(self._arrays)

    def _launch(self, parts: Parts) -> None:
        at = self._at
        num = self._take_steps.num_steps(at % self._last)
        parts.end("bookkeeping")
        self._watched.mark(f"reading data for step {at + 1}")
        parts.end("marks of the watchdog")
        asked = time.perf_counter()
        taken = [next(self._batches) for _ in range(num)]
        parts.end("taking the batch")
        self._speed.waited(asked, num, self._verdict)
        parts.end("bookkeeping")
        self._watched.mark(f"running step {at + 1}", waiting=True)
        parts.end("marks of the watchdog")
        self._progress.move(at)
        stop = self._stop_flags()
        parts.end("bookkeeping")
        self._arrays, metrics, self._verdict = self._take_steps(self._arrays, taken, stop)
        parts.end("launch")
        self._at += num
        self._unread.add(self._at, self._verdict)
        self._logged.add(self._at, metrics, last=False)
        self._traced.after(self._at, metrics)
        parts.end("bookkeeping")

    def _look(self, parts: Parts, *, is_logged: bool) -> None:
        self._unread.read(self._at, now=False)
        parts.end("reading of verdicts")
        self._folder.check()
        self._checkpoints.check()
        parts.end("checks of the lease, the folder and saves")
        if is_logged and self._logged.write(self._at):
            self._traced.look(self._at)
            parts.end("logged points")
