"""Recovery from a bad step: the run stops or returns to a good state (`config.guard`)."""

import dataclasses
import time
from collections.abc import Callable

import jax
import numpy as np

from pipeline.mesh import sharding
from pipeline.training import (
    evaluation,
    guard,
    lateness,
    replicas,
    seed_runs,
    setup,
    step,
    verdicts,
)
from pipeline.training.logged import writers
from pipeline.training.saving import checkpoint
from pipeline.training.step import TrainState


class Recovery:
    """Returns a run to a good state; counts the rollbacks since this process started."""

    def __init__(
        self, ready: setup.Setup, checkpoints: checkpoint.Checkpoints, late: lateness.Lateness
    ):
        """Does nothing yet; the good states come from `checkpoints`, `late` judges evaluations."""
        self._ready, self._checkpoints, self._late = ready, checkpoints, late
        self._rollbacks = 0

    def go_back(
        self, verdict: verdicts.Verdict, at: int, state: TrainState
    ) -> tuple[TrainState, str]:
        """Returns the newest saved state with `at` as its step, and a text that says what happened.

        The data continue after `at`, so the batches since the saved step are skipped. Schedules
        have the values that they would have without the fault.

        Args:
            verdict: holds the first bad step, at most `at`, and the guard's judgement of it.
            at: the newest step.
            state: the state of step `at`.

        Raises:
            FloatingPointError: the run must stop; the text names the step and bad arrays.
        """
        config, whose = self._ready.config, ""
        if config.replicas > 1:
            whose = f" of the seed {replicas.seeds(config)[verdict.replica]}"
            state = replicas.one(state, verdict.replica)
        found = guard.REASONS[verdict.judgement]
        return self._restored(f"the loss{whose} of step {verdict.bad_step} {found}", at, state)

    def evaluated(
        self,
        evaluate: seed_runs.Evaluations,
        state: TrainState,
        writer: writers.Writers,
        at: int,
        warn: Callable[[str], None],
    ) -> tuple[dict[str, float], TrainState]:
        """Evaluates `state`, and returns the figures and the state with which the run goes on.

        A figure that is not finite is treated as such a loss, so that no checkpoint holds its
        state. Without a guard, the rest of this evaluation is left out.

        Raises:
            FloatingPointError: the run must stop.
        """
        began = time.perf_counter()
        try:
            figures = evaluate(state, writer, at, warn=warn)
            self._late.of_evaluation(at, time.perf_counter() - began)
            return figures, state
        except evaluation.NotFinite as error:
            text = f"{error}: the rest of this evaluation is left out"
            if self._ready.config.guard.action != "off":
                state, text = self._restored(str(error), at, state)
        warn(text)
        writer.write("heldout/warnings", text, at)
        return {}, state

    def _restored(self, what: str, at: int, state: TrainState) -> tuple[TrainState, str]:
        ready, guarded = self._ready, self._ready.config.guard
        if guarded.action == "stop" or self._rollbacks == guarded.max_rollbacks:
            raise FloatingPointError(f"{what}; {guard.bad_leaves(state.params)}")
        self._rollbacks += 1
        # A save may still be on its way, and a half-written step cannot be restored.
        self._checkpoints.wait()
        if self._checkpoints.steps():
            good, state, damaged = self._checkpoints.restore_newest(ready.abstract, ready.mesh)
            what += "".join(f"; checkpoint {n} is set aside ({damaged[n]})" for n in damaged)
        else:
            good, state = 0, step.create_state(ready.config, ready.example, ready.mesh)
        number = jax.device_put(np.int32(at), sharding.replicated(ready.mesh))
        text = f"{what}: back to the state of step {good}, continuing after step {at}"
        return dataclasses.replace(state, step=number), text
