"""What a logged point costs the loop: reading metrics, the event file, the progress line."""

import io
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from pipeline.display import tensorboard, terminal
from pipeline.performance import timing
from pipeline.performance.bench import Bench, compiled_step, first_arrays, no_stop, stepper

POINTS = 20  # in a round


def measure(bench: Bench) -> dict[str, Any]:
    """Returns the time to write one logged point, flushed, and its share of the steps' time."""
    # One step's metrics serve for all points, so that only the logging is timed.
    compiled = compiled_step(bench)
    _, metrics, _ = compiled(first_arrays(bench), bench.batch, no_stop(bench.ready.mesh))
    jax.block_until_ready(metrics)
    at = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        tensorboard.Writer(Path(folder), resume_step=None) as writer,
        terminal.Terminal(console=Console(file=io.StringIO())).progress(10**9) as progress,
    ):

        def log() -> None:
            nonlocal at
            for _ in range(POINTS):
                at += 1
                values = jax.device_get(metrics)
                for name, value in values.items():
                    writer.write(f"train/{name}", value, at)
                progress.update(at, metrics=values)
                writer.flush()

        seconds = timing.in_turn({"log": log}, rounds=bench.options.rounds)
    # The share refers to the steps between two points.
    bare, num = stepper(bench, compiled)
    began = time.perf_counter()
    bare()
    step_ms = 1000 * (time.perf_counter() - began) / num
    point_ms = 1000 * timing.median(seconds["log"]) / POINTS
    every = bench.ready.config.log_every_steps
    return {
        "curves": len(metrics),
        "a point, ms": point_ms,
        f"share of the time of {every} steps": point_ms / (every * step_ms),
    }
