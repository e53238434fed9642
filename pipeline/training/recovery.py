"""What follows from a bad step: the run stops, or goes back to a good state (`config.guard`)."""

import dataclasses

import jax
import numpy as np

from pipeline.mesh import sharding
from pipeline.training import checkpoint, guard, setup, step, verdicts
from pipeline.training.step import TrainState


class Recovery:
    """The way back, for one start of a run."""

    def __init__(self, ready: setup.Setup, checkpoints: checkpoint.Checkpoints):
        """Does nothing yet; the good states are in `checkpoints`."""
        self._ready, self._checkpoints = ready, checkpoints
        self._rollbacks = 0

    def go_back(
        self, verdict: verdicts.Verdict, at: int, state: TrainState
    ) -> tuple[TrainState, str]:
        """Returns the newest saved state with `at` as its step, and in words what happened.

        The data go on after `at`: the steps between are skipped, and schedules stand as they would
        without the fault.

        Args:
            verdict: names the first bad step, at most `at`, and the guard's judgement of it.
            at: the newest step.
            state: that of step `at`.

        Raises:
            FloatingPointError: the run is to stop; the text names the step and bad arrays.
        """
        ready, guarded = self._ready, self._ready.config.guard
        what = f"the loss of step {verdict.bad_step} {guard.REASONS[verdict.judgement]}"
        if guarded.action == "stop" or self._rollbacks == guarded.max_rollbacks:
            raise FloatingPointError(f"{what}; {guard.bad_leaves(state.params)}")
        self._rollbacks += 1
        self._checkpoints.wait()
        if self._checkpoints.steps():
            good, state, _ = self._checkpoints.restore_newest(ready.abstract, ready.mesh)
        else:
            good, state = 0, step.create_state(ready.config, ready.example, ready.mesh)
        number = jax.device_put(np.int32(at), sharding.replicated(ready.mesh))
        text = f"{what}: back to the state of step {good}, going on behind step {at}"
        return dataclasses.replace(state, step=number), text
