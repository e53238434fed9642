"""Checkpoints by Orbax: asynchronous, atomic, restored onto any mesh and checked on restoring.

A checkpoint holds the model's tree, however the state lies on the mesh (see `mesh.layouts`). It
also holds a digest of each array, computed on the devices, and a digest of its held-out figures.
Without digests a flipped byte would be read back as a wrong value; they find it, and truncated and
missing files are found, too. A damaged checkpoint is set aside under another name, and the one
before it is restored. Damaged figures are set aside by themselves: the arrays beside them are used.
"""

import contextlib
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.sharding import Mesh
from orbax.checkpoint._src import asyncio_utils

from pipeline.mesh import agreement, layouts
from pipeline.runtime import errors, event_loops, files
from pipeline.runtime.storage import faults
from pipeline.training.saving import barriers, checkpoint_folder, ranking, saved_arrays
from pipeline.training.step import TrainState

ORBAX = str(Path(ocp.__file__).parent)
FINISH_SECONDS = 60.0  # for a save that is under way when an error ends the run
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

    def __init__(
        self,
        folder: Path,
        config: Any,
        on_failure: Callable[[Exception], object] = lambda error: None,
        *,
        read_only: bool = False,
    ):
        """Opens the folder, and creates it if it is missing.

        Args:
            folder: absolute path.
            config: the section `checkpoint`.
            on_failure: receives the error of this process's part of a save by several processes,
                on another thread; `check` and `wait` raise it, too.
            read_only: creates, removes and alters nothing; the folder must exist.

        Raises:
            InputError: checkpoints cannot lie in a folder of this name.
        """
        checkpoint_folder.check_path(folder)
        self._folder, self._config = folder, config
        self._marked = checkpoint_folder.is_marked(folder, config)
        self._manager: Any = None
        self._on_failure = on_failure
        self._scores: dict[int, float] = {}  # the best metric by step
        self._whole: set[int] = set()  # steps that this process has written or restored
        self._fixed: set[int] = set()  # steps that are never removed
        self.warnings: list[str] = []  # what was found damaged on opening
        _quieten_orbax()
        self._look(alter=not read_only)
        if not read_only:
            self._open()

    def _look(self, *, alter: bool) -> None:
        """Notes what is in the folder, and sets damaged figures aside if it may."""
        if alter and self._marked and jax.process_index() == 0:
            self._clear()
        self._entries = checkpoint_folder.entries(self._folder, marked=self._marked)
        if alter and jax.process_index() == 0:
            for path in checkpoint_folder.links_of_saves(self._folder):
                files.set_aside(path)
        for step in self.steps():
            path = self._folder / str(step)
            found, fault = checkpoint_folder.figures(path)
            name = self._config.best_metric
            if name in found:
                self._scores[step] = found[name]
            elif found:
                fault = f"they lack {name!r}"
            if path.is_symlink():
                self._fixed.add(step)  # what lies elsewhere was put there by a person
            if not (fault and self._config.keep_best):
                continue
            # It may be the best one, so that it stays whatever the others' figures are.
            self._fixed.add(step)
            self.warnings.append(f"the figures of checkpoint {step} are not used: {fault}")
            if alter and not found and jax.process_index() == 0:
                with contextlib.suppress(OSError):  # only the name would change
                    files.set_aside(path / checkpoint_folder.FIGURES)

    def _clear(self) -> None:
        """Makes room for the steps that a killed save left unfinished; loses no checkpoint."""
        for path, was_committed in checkpoint_folder.unfinished(self._folder):
            if was_committed:
                self.warnings.append(f"checkpoint {path.name} has lost its marker: it is set aside")
                files.set_aside(path)
            else:
                epath.Path(path).rmtree(missing_ok=True)

    def _open(self) -> None:
        """Opens Orbax's manager, which reads no figures by itself: they may be damaged."""
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            best_fn=len,  # never called, but without it no figures are written
            lightweight_initialize=True,
            async_options=barriers.options(self._failed),
            temporary_path_class=(
                ocp.path.atomicity.CommitFileTemporaryPath if self._marked else None
            ),
        )
        with faults.writing(self._folder):
            folder = checkpoint_folder.literal(self._folder)
            self._manager = ocp.CheckpointManager(folder, options=options)

    def _failed(self, error: BaseException) -> None:
        try:
            with faults.writing(self._folder):
                raise error
        except Exception as named:
            self._on_failure(named)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Tells Orbax which checkpoints stay, as its preservation policies do."""
        steps = [info.step for info in checkpoints]
        known = ranking.Known(self._scores, self._whole, self._fixed)
        stay = ranking.kept(self._config, steps, known)
        return [step in stay for step in steps]

    def steps(self) -> list[int]:
        """Returns the committed steps, ascending; damaged ones may be among them."""
        if self._manager is None:
            return [step for step, fault in self._entries.items() if not fault]
        junk = [step for step, fault in self._entries.items() if fault]
        return sorted({*self._manager.all_steps(), *junk})

    def best_step(self) -> int | None:
        """Returns the step with the best finite held-out metric, if any was evaluated."""
        steps = self.steps()
        if not self._config.keep_best:
            return steps[-1] if steps else None
        ranked = ranking.by_score(self._config, self._scores)
        return next((step for step in ranked if step in steps), None)

    @property
    def lacking(self) -> str:
        """Says what no checkpoint has if `best_step` is None."""
        name = self._config.best_metric
        return f"has a finite {name}" if self._scores else "was evaluated yet"

    def save(self, step: int, state: TrainState, metrics: dict[str, float] | None) -> None:
        """Starts a save that continues in the background; raises if an earlier one failed.

        `metrics` are the held-out figures of this step, or None if it was not evaluated.
        """
        if step in self._manager.all_steps():
            return
        state = layouts.to_tree(state)
        arrays = {"state": state, "digests": saved_arrays.digests(state)}
        self._whole.add(step)
        figures = None
        if metrics and self._config.keep_best:
            figures = checkpoint_folder.with_digest(metrics)
            self._scores[step] = metrics.get(self._config.best_metric, float("nan"))
        with faults.writing(self._folder):
            accepted = self._manager.save(
                step,
                args=ocp.args.StandardSave(arrays),
                metrics=figures,
                force=True,
            )
        if not accepted:
            raise RuntimeError(f"Orbax refused to save step {step}")

    def check(self) -> None:
        """Raises the error of a save that has failed meanwhile; costs nothing and never waits."""
        with faults.writing(self._folder):
            self._manager.check_for_errors()

    def restore(self, step: int, abstract: TrainState, mesh: Mesh) -> TrainState:
        """Returns the state of `step`, laid out on `mesh`; `abstract` is its tree.

        Raises:
            OSError: the checkpoint is damaged.
            InputError: it has other arrays than `abstract`.
        """
        state, fault = self._read(step, abstract, mesh)
        if fault:
            self._refuse_others(step, abstract)
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
            InputError: none can be read, and one has other arrays than `abstract`; as above.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self.steps()):
            state, fault = self._read(step, abstract, mesh)
            if not fault:
                self._set_aside(damaged, mesh)
                self._whole.add(step)
                return step, state, damaged
            damaged[step] = fault
        for step in damaged:
            self._refuse_others(step, abstract)
        listed = "; ".join(f"{step}: {fault}" for step, fault in damaged.items())
        raise OSError(
            f"every checkpoint in {self._folder} is damaged ({listed}): put a good copy there, or "
            "start again with another --workdir"
        )

    def _read(self, step: int, abstract: TrainState, mesh: Mesh) -> tuple[Any, str]:
        """Returns the state of `step` and its fault, which is "" if no process found one."""
        saved, fault = self._load(step, abstract, mesh)
        # The digest of an array that is cut needs every process, so all must have read it first.
        if not agreement.any_process(mesh, bool(fault)):
            wrong = np.asarray(saved["digests"]) != np.asarray(saved_arrays.digests(saved["state"]))
            if wrong.any():
                paths = [
                    jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(abstract)
                ]
                fault = f"the contents of {paths[wrong.argmax()]} do not match their digest"
            elif (own := int(saved["state"].step)) != step:
                fault = f"it is a copy of step {own}"
            if not agreement.any_process(mesh, bool(fault)):
                return layouts.from_tree(saved["state"], mesh), ""
        return None, fault or "another process could not read it"

    def _load(self, step: int, abstract: TrainState, mesh: Mesh) -> tuple[Any, str]:
        """Returns what was saved at `step`, unchecked, or why it cannot be read."""
        fault = self._entries.get(step)
        return (None, fault) if fault else saved_arrays.load(self._folder, step, abstract, mesh)

    def _refuse_others(self, step: int, abstract: TrainState) -> None:
        """Raises an InputError if the checkpoint's list of arrays is not that of `abstract`."""
        if differing := saved_arrays.differences(self._folder, step, abstract):
            raise errors.InputError(
                f"the checkpoints in {self._folder} belong to another model or other data: "
                f"{differing}. Use the run's own config and data, or another --workdir"
            )

    def _set_aside(self, steps: Collection[int], mesh: Mesh) -> None:
        if not steps:
            return
        if jax.process_index() == 0:
            for step in steps:
                files.set_aside(self._folder / str(step))
        agreement.wait_for_all(mesh)  # for the renaming
        for step in steps:
            self._entries.pop(step, None)
            self._scores.pop(step, None)
            self._fixed.discard(step)
        self._manager.close()
        self._open()

    def wait(self) -> None:
        """Returns when all saves are committed; raises the error of a save that failed."""
        with faults.writing(self._folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for all saves and releases the threads."""
        if self._manager is not None:
            self._manager.close()

    def __enter__(self) -> Self:
        """Returns the checkpoints themselves."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        """After an error, finishes a save that is under way: that work need not be lost."""
        if kind is None:
            return

        def finish() -> None:
            with contextlib.suppress(Exception):  # perhaps this save is the error
                self._manager.wait_until_finished()

        # Bounded: a save by several processes never ends if one of them is lost.
        thread = threading.Thread(target=finish, name="last save", daemon=True)
        thread.start()
        thread.join(FINISH_SECONDS)
