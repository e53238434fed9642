"""Several short steps in one dispatch (`config.steps_per_dispatch`).

The host starts one program for up to N steps instead of one for every step. A dispatch never
crosses a step that logs, evaluates or saves: it ends there, with fewer steps. So a run can stop
after any step and resume there with another N. A stop request takes effect when the dispatch ends.

One program takes any number of steps up to N, in a loop whose length the compiler does not know.
So a run has the same bits, however its steps were grouped. The program of N = 1 has no loop and may
round in another way.

Between dispatches the state is a list of its arrays. JAX takes a model's tree apart in Python, so a
launch with the tree takes the host about a quarter longer.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh

from pipeline import models
from pipeline.mesh import compiling, sharding
from pipeline.training import guard, step


class Dispatcher:
    """Takes one or several steps of a run in one dispatch."""

    def __init__(self, config: Any, example: Any, mesh: Mesh):
        """Compiles nothing yet; the program compiles at its first call.

        `most` is the number of steps of the longest dispatch.
        """
        # After these steps the host has work: `loop.run` logs, evaluates or saves.
        self._stops = config.log_every_steps, config.eval_every_steps, config.checkpoint.every_steps
        self._last, self.most = config.total_steps, config.steps_per_dispatch
        # Longer dispatches would never come. A loop over arrays of one row would compile otherwise.
        if self.most > 1:
            self.most = max(2, min(self.most, *self._stops))
        self._form: Any = None
        self._one_step = step.sharded_step(config, example, mesh)
        self._one = compiling.jit(self._on_arrays(self._one_step), mesh, donate_argnums=0)
        self._several = compiling.jit(self._on_arrays(self._steps), mesh, donate_argnums=0)
        self._mesh, self._good = mesh, [guard.GOOD] * config.replicas

    def arrays(self, state: step.TrainState) -> list[Array]:
        """Returns the state in the form that steps take: the list of its arrays."""
        arrays, self._form = jax.tree.flatten(state)
        return arrays

    def state(self, arrays: list[Array]) -> step.TrainState:
        """Returns the state of these arrays, from `arrays` or from a step."""
        return jax.tree.unflatten(self._form, arrays)

    def num_steps(self, at: int) -> int:
        """Returns how many steps to take after step `at`: N, or fewer if the host is needed."""
        if self.most == 1:
            return 1
        stop = min(self._last, *((at // every + 1) * every for every in self._stops))
        return min(self.most, stop - at)

    def __call__(self, arrays: list[Array], batches: Sequence[models.Batch], stop: Array) -> Any:
        """Takes one step per batch; returns the new arrays, the last metrics and all verdicts.

        There are as many batches as `num_steps` said. Their verdicts are the last rows of [N, V],
        or [V] if N is 1; V is 2, or as `replicas` say. Rows before them read as good steps. The
        given arrays are donated.
        """
        if self.most == 1:
            return self._one(arrays, batches[0], stop)
        filled = [*batches, *[batches[-1]] * (self.most - len(batches))]
        return self._several(arrays, filled, self._counts[len(batches)], stop)

    @functools.cached_property
    def _counts(self) -> list[Array]:
        """Numbers of steps, placed once, so that a call transfers nothing."""
        # Not before the first call: the devices of a plan hold no arrays.
        return sharding.everywhere(list(np.arange(self.most + 1, dtype=np.int32)), self._mesh)

    def trace(self, arrays: list[Any], batch: Any, stop: Any) -> Any:
        """Returns the single step, traced from shapes, dtypes and shardings."""
        return self._one.trace(arrays, batch, stop)

    def _steps(
        self, state: step.TrainState, batches: Sequence[models.Batch], count: Array, stop: Array
    ) -> Any:
        """Takes the first `count` of the batches; returns what `__call__` does, with the state."""
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
        rows = len(batches)

        def body(number, carry):
            state, _, verdicts = carry
            batch = jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, number, 0, False), stacked)
            state, metrics, verdict = self._one_step(state, batch, stop)
            # The newest verdict comes last, as `verdicts.Verdicts` expects.
            return state, metrics, verdicts.at[rows - count + number].set(verdict)

        shapes = jax.eval_shape(self._one_step, state, batches[0], stop)[1]
        metrics = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        good = jnp.tile(jnp.array([0.0, *self._good], jnp.float32), (rows, 1))
        # The host logs no step in between, so only the last metrics leave the program.
        return lax.fori_loop(0, count, body, (state, metrics, good))

    def _on_arrays(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function of states as one of their arrays."""

        @functools.wraps(function)  # the name of the program
        def on_arrays(arrays, *arguments):
            state, metrics, verdict = function(self.state(arrays), *arguments)
            return jax.tree.leaves(state), metrics, verdict

        return on_arrays
