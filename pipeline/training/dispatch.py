"""Several short steps in one dispatch (`config.steps_per_dispatch`).

The host starts one program every N steps instead of one every step. A dispatch never crosses a step
that logs, evaluates or saves: if one is less than N steps ahead, single steps lead up to it. So a
run can stop after any step and resume there with another N. Results match single steps up to
rounding, and the order of the data is the same. A stop request takes effect when the dispatch ends.

Between steps the state is a list of its arrays. JAX takes a model's tree apart in Python, so a
launch with the tree takes the host about a quarter longer.

Steps follow each other in a `lax.scan`, so N steps compile as fast as one.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh

from pipeline import models
from pipeline.mesh import compiling
from pipeline.runtime import errors
from pipeline.training import step


def check(config: Any) -> None:
    """Raises an InputError if no dispatch could ever take all of its steps."""
    num = config.steps_per_dispatch
    for field, every in _stops(config).items():
        if num > every:
            raise errors.InputError(
                f"config.steps_per_dispatch={num} exceeds config.{field}={every}: it must be "
                f"{every} or less, at best a number that divides it"
            )


class Dispatcher:
    """Takes one step of a run, or N steps in one dispatch."""

    def __init__(self, config: Any, example: Any, mesh: Mesh):
        """Compiles nothing yet; each of the two programs compiles at its first call."""
        self._num, self._last = config.steps_per_dispatch, config.total_steps
        self._stops = tuple(_stops(config).values())
        one_step = step.sharded_step(config, example, mesh)

        def several_steps(state: step.TrainState, batches: Sequence[models.Batch], stop: Array):
            def body(state, batch):
                state, metrics, verdict = one_step(state, batch, stop)
                return state, (metrics, verdict)

            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
            state, (metrics, verdicts) = lax.scan(body, state, stacked)
            # The host logs no step in between, so only the last metrics leave the program.
            return state, jax.tree.map(lambda values: values[-1], metrics), verdicts

        self._form: Any = None
        self._one = compiling.jit(self._on_arrays(one_step), mesh, donate_argnums=0)
        self._several = compiling.jit(self._on_arrays(several_steps), mesh, donate_argnums=0)

    def arrays(self, state: step.TrainState) -> list[Array]:
        """Returns the state in the form that steps take: the list of its arrays."""
        arrays, self._form = jax.tree.flatten(state)
        return arrays

    def state(self, arrays: list[Array]) -> step.TrainState:
        """Returns the state of these arrays, from `arrays` or from a step."""
        return jax.tree.unflatten(self._form, arrays)

    def num_steps(self, at: int) -> int:
        """Returns how many steps to take after step `at`: N, or 1 if the host is needed earlier."""
        if self._num == 1:
            return 1
        stop = min(self._last, *((at // every + 1) * every for every in self._stops))
        return self._num if at + self._num <= stop else 1

    def __call__(self, arrays: list[Array], batches: Sequence[models.Batch], stop: Array) -> Any:
        """Takes one step per batch; returns the new arrays, the last metrics and all verdicts.

        There are 1 or N batches, and the verdicts are [2] or [N, 2]; see `step.sharded_step`. The
        given arrays are donated.
        """
        if len(batches) > 1:
            return self._several(arrays, batches, stop)
        return self._one(arrays, batches[0], stop)

    def trace(self, arrays: list[Any], batch: Any, stop: Any) -> Any:
        """Returns the single step, traced from shapes, dtypes and shardings."""
        return self._one.trace(arrays, batch, stop)

    def _on_arrays(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function of states as one of their arrays."""

        @functools.wraps(function)  # the name of the program
        def on_arrays(arrays, *arguments):
            state, metrics, verdict = function(self.state(arrays), *arguments)
            return jax.tree.leaves(state), metrics, verdict

        return on_arrays


def _stops(config: Any) -> dict[str, int]:
    """Returns the intervals, in steps, at which `loop.run` logs, evaluates and saves."""
    return {
        "log_every_steps": config.log_every_steps,
        "eval_every_steps": config.eval_every_steps,
        "checkpoint.every_steps": config.checkpoint.every_steps,
    }
