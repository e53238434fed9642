"""The whole training loop without evaluations, in turn with as many bare steps."""

import contextlib
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.display import event_files
from pipeline.performance import timing
from pipeline.performance.bench import NEVER, Bench, compiled_step, stepper
from pipeline.runtime import peers
from pipeline.training import loop as training
from pipeline.training import run_folder, setup

SECONDS = 5.0  # of a round, if --loop_steps does not set its number of steps
MOST_ROUNDS = 5


def measure(bench: Bench) -> dict[str, Any]:
    """Returns the time of a step in the loop over a bare step's, and the share spent waiting."""
    compiled, num = compiled_step(bench), bench.options.loop_steps
    # Figures come from logged points, so a round has at least two of them.
    if not num:
        run, few = stepper(bench, compiled)
        seconds = timing.in_turn({"run": run}, rounds=1)["run"][0]
        num = max(2 * bench.ready.config.log_every_steps, int(SECONDS * few / seconds))
    bare, _ = stepper(bench, compiled, num=num)
    ratios, waited = [], []
    for _ in range(min(bench.options.rounds, MOST_ROUNDS)):
        began = time.perf_counter()
        bare()
        ms = 1000 * (time.perf_counter() - began) / num
        in_loop, share = _trained(bench.ready.config, num)
        ratios.append(in_loop / ms)
        waited.append(share)
    # Each ratio pairs a loop with the bare steps just before it.
    median, low, high = (float(np.percentile(ratios, q)) for q in (50, 25, 75))
    return {
        "steps a round": num,
        "saves a round": num // bench.ready.config.checkpoint.every_steps,
        "step in the loop over bare step": timing.Ratio(median, low, high),
        "waiting for data, share of the step": timing.median(waited),
    }


def _trained(config: Any, num: int) -> tuple[float, float]:
    """Returns what a run of `num` steps logs: ms per step, and the share of waiting for data."""
    # Evaluations are left out, and with them the choice of the best checkpoint.
    config = config.copy_and_resolve_references().unlock()
    config.total_steps, config.eval_every_steps = num, num + 1
    config.evals, config.checkpoint.keep_best = (), 0
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        workdir = Path(folder) / "run"
        alone = {"stop": NEVER, "others": peers.alone()}
        ready = setup.prepare(config.lock())
        with run_folder.held(workdir, ready, **alone) as held:
            training.run(ready, held, **alone)
        points = event_files.read_scalars(workdir / "tensorboard")
    ends = [at for at, _ in points["train/ms_per_step"]]
    # A point is a mean over the steps since the one before. The first step compiles, so it counts
    # in no point.
    steps = np.diff([1, *ends])
    ms, shares = (
        float(np.average([value for _, value in points[f"train/{name}"]], weights=steps))
        for name in ("ms_per_step", "data_wait_share")
    )
    return ms, shares
