"""The state of the checkpoint that --step names; the run is only read, and may still train.

Process 0 chooses the checkpoint for all processes.
"""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pipeline.display import terminal
from pipeline.mesh import agreement
from pipeline.runtime import errors
from pipeline.training import setup, step
from pipeline.training.saving import checkpoint


def restore(
    workdir: Path, choice: str, ready: setup.Setup, *, warn: Callable[[str], None] | None = None
) -> tuple[int, step.TrainState]:
    """Returns the number of the step that `choice` means, and its state on the mesh.

    Args:
        workdir: of the run.
        choice: "best", "latest", or the number of a step.
        ready: result of `setup.prepare_evaluation`; its data need not be open.
        warn: called with a text about damaged figures; None: process 0 prints it.

    Raises:
        InputError: the run has no checkpoint, none that `choice` names, or it cannot be read.
    """
    checkpoints = _open(workdir, ready.config)
    at = _agreed(checkpoints, workdir, choice)
    for text in checkpoints.warnings:
        (warn or terminal.Terminal(active=jax.process_index() == 0).warn)(text)
    try:
        state = checkpoints.restore(at, ready.abstract, ready.mesh)
    except OSError as error:
        raise errors.InputError(
            f"{textwrap.shorten(str(error), 160, placeholder=' …')}; choose another by --step, of "
            f"{', '.join(map(str, checkpoints.steps()))}"
        ) from error
    checkpoints.close()
    return at, state


def number(workdir: Path, choice: str, config: Any) -> int:
    """Returns the number of the step that `choice` means, as in `restore`; reads no state."""
    checkpoints = _open(workdir, config)
    at = _agreed(checkpoints, workdir, choice)
    checkpoints.close()
    return at


def _open(workdir: Path, config: Any) -> checkpoint.Checkpoints:
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        raise errors.InputError(f"--workdir={workdir} has no checkpoint yet")
    return checkpoint.Checkpoints(folder, config.checkpoint, read_only=True)


def _agreed(checkpoints: checkpoint.Checkpoints, workdir: Path, choice: str) -> int:
    # If the run commits a checkpoint now, only some processes may see it as the latest.
    chosen = np.int32(_choose(checkpoints, workdir, choice))
    return int(agreement.chosen_by_first(chosen))


def _choose(checkpoints: checkpoint.Checkpoints, workdir: Path, choice: str) -> int:
    steps = checkpoints.steps()
    if not steps:
        raise errors.InputError(f"--workdir={workdir} has no checkpoint yet")
    listed = ", ".join(map(str, steps))
    choices: dict[str, int | None] = {str(number): number for number in steps}
    choices |= {"latest": steps[-1], "best": checkpoints.best_step()}
    if choice not in choices:
        raise errors.InputError(
            f"--step={choice} is no checkpoint of this run: choose best, latest or one of {listed}"
        )
    at = choices[choice]
    if at is None and checkpoints.warnings:
        return steps[-1]  # the figures that would tell are damaged, as a warning says
    if at is None:
        raise errors.InputError(
            f"--step=best: no checkpoint {checkpoints.lacking}; use --step=latest or one of "
            f"{listed}"
        )
    return at
