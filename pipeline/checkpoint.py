"""Checkpoints by Orbax: asynchronous, atomic, and restored onto any mesh."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import Mesh
from orbax.checkpoint import checkpoint_managers as managers

from pipeline import errors, sharding
from pipeline.step import TrainState


class Checkpoints:
    """The checkpoints of one run, `folder/<step>/`; a step folder appears only when it is whole."""

    def __init__(self, folder: Path, config: Any, *, read_only: bool = False):
        """Opens the folder; creates it where it is missing.

        Args:
            folder: absolute path.
            config: the section `checkpoint`.
            read_only: nothing is created, removed or altered; the folder must exist.
        """
        self._folder = folder
        keep: list[Any] = [managers.LatestN(config.keep_newest)]
        if config.keep_every_steps:
            keep.append(managers.EveryNSteps(config.keep_every_steps))
        best = None
        if config.keep_best:

            def best(metrics):
                return metrics[config.best_metric]

            keep.append(
                managers.BestN(
                    get_metric_fn=best,
                    reverse=config.best_mode == "min",
                    n=config.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        # Orbax logs what it then raises, in many lines, and warns of metrics that steps without an
        # evaluation don't have, and of the options that `read_only` overrules.
        logging.set_verbosity(logging.FATAL)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=managers.AnyPreservationPolicy(keep),
            best_fn=best,  # without it the metrics are not written, and a restart forgets them
            best_mode=config.best_mode,
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
        )
        with errors.writing(folder):
            self._manager = ocp.CheckpointManager(folder, options=options)

    def steps(self) -> list[int]:
        """Returns the committed steps, ascending."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Returns the step with the best held-out metric, if any was evaluated."""
        return self._manager.best_step()

    def save(self, step: int, state: TrainState, metrics: dict[str, float] | None) -> None:
        """Starts a save that goes on in the background; a failed earlier one raises here.

        `metrics` are the held-out figures of this very step, if it was evaluated.
        """
        if step in self._manager.all_steps():
            return
        with errors.writing(self._folder):
            saved = self._manager.save(
                step, args=ocp.args.StandardSave(state), metrics=metrics, force=True
            )
        if not saved:
            raise RuntimeError(f"Orbax refused to save step {step}")

    def restore(self, step: int, abstract: TrainState, mesh: Mesh) -> TrainState:
        """Returns the state of `step`, replicated over `mesh`."""
        where = sharding.replicated(mesh)
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), abstract
        )
        return self._manager.restore(step, args=ocp.args.StandardRestore(target))

    def wait(self) -> None:
        """Returns when all saves are committed; raises what stopped one."""
        with errors.writing(self._folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and releases the threads."""
        self._manager.close()
