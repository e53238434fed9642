"""What follows from a bad step: the run stops, or goes back to a good state (`config.guard`)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline.mesh import sharding
from pipeline.training import checkpoint, guard
from pipeline.training.step import TrainState


class Recovery:
    """The way back, for one start of a run."""

    def __init__(
        self,
        config: Any,
        checkpoints: checkpoint.Checkpoints,
        abstract: TrainState,
        mesh: Mesh,
        first: Callable[[], TrainState],
    ):
        """Does nothing yet.

        Args:
            config: of the run; reads `guard`.
            checkpoints: where the good states are.
            abstract: shapes and types of the state.
            mesh: its devices.
            first: makes the state of step 0, for a run that has no checkpoint yet.
        """
        self._config, self._checkpoints = config.guard, checkpoints
        self._abstract, self._mesh, self._first = abstract, mesh, first
        self._rollbacks = 0

    def go_back(
        self, bad_step: int, judgement: float, at: int, state: TrainState
    ) -> tuple[TrainState, str]:
        """Returns the newest saved state with `at` as its step, and in words what happened.

        The data go on behind `at`: the window between is skipped, and schedules stand where they
        would.

        Args:
            bad_step: the first that the guard found bad, not behind `at`.
            judgement: the guard's of it.
            at: the newest step.
            state: that of step `at`.

        Raises:
            FloatingPointError: the run is to stop; the text names the step and bad arrays.
        """
        what = f"the loss of step {bad_step} {guard.REASONS[judgement]}"
        if self._config.action == "stop" or self._rollbacks == self._config.max_rollbacks:
            raise FloatingPointError(f"{what}; {guard.bad_leaves(state.params)}")
        self._rollbacks += 1
        self._checkpoints.wait()
        if self._checkpoints.steps():
            good, state, _ = self._checkpoints.restore_newest(self._abstract, self._mesh)
        else:
            good, state = 0, self._first()
        number = jax.device_put(np.int32(at), sharding.replicated(self._mesh))
        text = f"{what}: back to the state of step {good}, going on behind step {at}"
        return dataclasses.replace(state, step=number), text
