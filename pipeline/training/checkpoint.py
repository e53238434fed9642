"""Checkpoints by Orbax: asynchronous, atomic, restored onto any mesh and checked on restoring.

A checkpoint holds the model's tree, however the state lies on the mesh (see `mesh.layouts`). It
also holds a digest of each array, computed on the devices. Without digests a flipped byte would be
read back as a wrong value; they find it, and truncated and missing files are found, too. A damaged
checkpoint is set aside under another name, and the one before it is restored.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import Mesh
from orbax.checkpoint import checkpoint_managers as managers
from orbax.checkpoint._src import asyncio_utils

from pipeline.mesh import layouts, sharding
from pipeline.runtime import errors, event_loops
from pipeline.training.step import TrainState

ORBAX = str(Path(ocp.__file__).parent)
FATAL = 50  # the standard library's level of absl's logging.FATAL


def _quieten_orbax() -> None:
    """Keeps Orbax's log, and the tracebacks of tasks that it leaves unfinished, off the terminal.

    Orbax logs in many lines what it then raises. It also warns that steps without an evaluation
    lack metrics, and that `read_only` overrules options.
    """
    logging.get_absl_logger().addFilter(_is_not_orbaxs)  # only the first call adds it
    event_loops.drain(asyncio_utils)


def _is_not_orbaxs(record: Any) -> bool:
    return not record.pathname.startswith(ORBAX) or record.levelno >= FATAL


class Checkpoints:
    """The checkpoints of one run, `folder/<step>/`; a step folder appears only when it is whole."""

    def __init__(self, folder: Path, config: Any, *, read_only: bool = False):
        """Opens the folder, and creates it if it is missing.

        Args:
            folder: absolute path.
            config: the section `checkpoint`.
            read_only: creates, removes and alters nothing; the folder must exist.
        """
        self._folder = folder
        # A step is kept if any of these policies wants it.
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
        _quieten_orbax()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=managers.AnyPreservationPolicy(keep),
            best_fn=best,  # without it no metrics are written, and a restart forgets which is best
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
        """Starts a save that continues in the background; raises if an earlier one failed.

        `metrics` are the held-out figures of this step, or None if it was not evaluated.
        """
        if step in self._manager.all_steps():
            return
        state = layouts.to_tree(state)
        with errors.writing(self._folder):
            saved = self._manager.save(
                step,
                args=ocp.args.StandardSave({"state": state, "digests": digests(state)}),
                metrics=metrics,
                force=True,
            )
        if not saved:
            raise RuntimeError(f"Orbax refused to save step {step}")

    def check(self) -> None:
        """Raises the error of a save that has failed meanwhile; costs nothing and never waits."""
        with errors.writing(self._folder):
            self._manager.check_for_errors()

    def restore(self, step: int, abstract: TrainState, mesh: Mesh) -> TrainState:
        """Returns the state of `step`, laid out on `mesh`; `abstract` is its tree.

        Raises:
            OSError: the checkpoint is damaged.
        """
        state, fault = self._read(step, abstract, mesh)
        if fault:
            raise OSError(f"checkpoint {self._folder / str(step)} is damaged: {fault}")
        return state

    def restore_newest(
        self, abstract: TrainState, mesh: Mesh
    ) -> tuple[int, TrainState, dict[int, str]]:
        """Returns the newest whole step, its state, and the faults of damaged steps after it.

        Damaged checkpoints are renamed to `damaged-<step>` and not removed. So they are never
        chosen, and do not stand in the way when that step is saved again. Every process takes the
        same step.

        Raises:
            OSError: all checkpoints are damaged; none is renamed.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self.steps()):
            state, fault = self._read(step, abstract, mesh)
            if not fault:
                self._set_aside(damaged, mesh)
                return step, state, damaged
            damaged[step] = fault
        listed = "; ".join(f"{step}: {fault}" for step, fault in damaged.items())
        raise OSError(
            f"every checkpoint in {self._folder} is damaged ({listed}): put a good copy there, or "
            "start again with another --workdir"
        )

    def _read(self, step: int, abstract: TrainState, mesh: Mesh) -> tuple[Any, str]:
        """Returns the state of `step` and its fault, which is "" if no process found one."""
        saved, fault = self._load(step, abstract, mesh)
        # The digest of an array that is cut needs every process, so all must have read it first.
        if not sharding.any_process(mesh, bool(fault)):
            wrong = np.asarray(saved["digests"]) != np.asarray(digests(saved["state"]))
            if wrong.any():
                paths = [
                    jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(abstract)
                ]
                fault = f"the contents of {paths[wrong.argmax()]} do not match their digest"
            if not sharding.any_process(mesh, bool(fault)):
                return layouts.from_tree(saved["state"], mesh), ""
        return None, fault or "another process could not read it"

    def _load(self, step: int, abstract: TrainState, mesh: Mesh) -> tuple[Any, str]:
        """Returns what was saved at `step`, unchecked, or why it cannot be read.

        It exchanges nothing with other processes, which may be able to read the step.
        """
        num, whole = len(jax.tree.leaves(abstract)), sharding.replicated(mesh)
        target = {
            "state": layouts.of_tree(abstract, mesh),
            "digests": jax.ShapeDtypeStruct((num,), np.uint32, sharding=whole),
        }
        # Each process reads by itself: a shared barrier would wait for one whose read has failed.
        process = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"{process}"
        )
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
        folder = self._folder / str(step) / ocp.checkpoint_manager.DEFAULT_ITEM_NAME
        try:
            with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
                return reader.restore(folder, args=ocp.args.StandardRestore(target)), ""
        except Exception as error:  # whatever the error is, the step before may be whole
            return None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"

    def _set_aside(self, steps: Iterable[int], mesh: Mesh) -> None:
        if not steps:
            return
        if jax.process_index() == 0:
            for step in steps:
                name = f"damaged-{step}"
                while (self._folder / name).exists():
                    name += "-again"
                with errors.writing(self._folder):
                    (self._folder / str(step)).rename(self._folder / name)
        sharding.wait_for_all(mesh)  # for the renaming
        self._manager.reload()

    def wait(self) -> None:
        """Returns when all saves are committed; raises the error of a save that failed."""
        with errors.writing(self._folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for all saves and releases the threads."""
        self._manager.close()


@jax.jit
def digests(state: Any) -> jax.Array:
    """Returns a digest of each array, [leaves] uint32, exact and the same on any mesh.

    It is the sum modulo 2³² of the bits of all values, each multiplied by its own odd number. So
    it changes if one value changes, or if two values swap places.
    """

    def digest(leaf):
        kind = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
        bits = jax.lax.bitcast_convert_type(leaf, kind).astype(jnp.uint32).ravel()
        weights = 2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1
        return (bits * weights).sum(dtype=jnp.uint32)

    return jnp.stack([digest(leaf) for leaf in jax.tree.leaves(state)])
