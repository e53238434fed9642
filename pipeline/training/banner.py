"""The banners that a run shows at its start and at its end."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from pipeline import datasets
from pipeline.display import pictures, terminal, texts
from pipeline.nn import schedules
from pipeline.runtime import run_config
from pipeline.training import optimizer, replicas, setup
from pipeline.training.saving import checkpoint


def of_start(ready: setup.Setup, workdir: Path, steps: list[int]) -> dict[str, str]:
    """Returns names and texts for the start; `steps` are the checkpoints' steps, ascending."""
    config, mesh, splits = ready.config, ready.mesh, ready.opened
    device = mesh.devices.flat[0]
    axes = " × ".join(f"{name} {size}" for name, size in mesh.shape.items())
    params = jax.tree.leaves(ready.abstract.params)
    num_params = sum(leaf.size for leaf in params) // config.replicas
    batches = len(splits.train) / config.batch_size
    measured = config.data.variance != ready.given.data.variance
    variance = f"; variance of their pixels {config.data.variance:.6g}" if measured else ""
    return {
        "model": f"{config.model.name}, {num_params:,} parameters, {config.compute_dtype}",
        **_replicas(config),
        "data": f"{config.data.name}: {len(splits.train):,} training and "
        f"{len(splits.heldout):,} held-out examples{_images(ready.example)}{variance}",
        "devices": f"{mesh.size} × {device.device_kind}, "
        f"{texts.counted(jax.process_count(), 'process')}",
        "mesh": f"{axes}; batch {config.batch_size} = {texts.counted(mesh.size, 'device')} × "
        f"{config.batch_size // mesh.size}, "
        f"{texts.counted(config.accumulation_steps, 'accumulation step')}",
        "steps": _steps(steps[-1] if steps else 0, config.total_steps, batches),
        **_schedules(config),
        "workdir": str(workdir),
        "tensorboard": _tensorboard(workdir, config.replicas),
    }


def _replicas(config: Any) -> dict[str, str]:
    """Returns which seeds train, if there are several."""
    if config.replicas == 1:
        return {}
    first, *_, last = replicas.seeds(config)
    return {"replicas": f"{config.replicas} seeds, {first} to {last}, in one program"}


def _images(example: Any) -> str:
    """Returns what is unusual about the images, such as "; uint16 of 0 … 4095", or ""."""
    pixels = datasets.shown_pixels(example)
    kind = "" if pixels.is_plain else f"; {pixels.text()}"
    part = pictures.caption("", pixels.shape[-1])
    return kind + (f"; pictures show {part[0].lower()}{part[1:]}" if part else "")


def _steps(done: int, total: int, batches: float) -> str:
    """Returns how far the run is; `batches` are those of an epoch."""
    if done > total:
        return f"{done:,} done, more than the {total:,} asked for: nothing is left to train"
    return f"{done:,} of {total:,} done; {total / batches:.1f} epochs in all"


def _schedules(config: Any) -> dict[str, str]:
    """Returns what changes over the run, and where each change ends."""
    names = run_config.schedules(run_config.flatten(config))
    found = {name: run_config.section(config, name) for name in names}
    said = [f"{name} {schedules.describe(one, config.total_steps)}" for name, one in found.items()]
    said.append(f"learning rate {optimizer.describe(config.optimizer, config.total_steps)}")
    return {"schedules": "; ".join(said)}


def show_start(
    screen: terminal.Terminal, ready: setup.Setup, shown: dict[str, str], *, unsaved: bool
) -> None:
    """Shows what is about to run, and which settings may surprise its author.

    Args:
        screen: where to show it.
        ready: the run.
        shown: from `of_start`, and what else is to be shown.
        unsaved: the run was started before, and no checkpoint was committed.
    """
    screen.banner(shown)
    for caution in setup.cautions(ready):
        screen.warn(caution)
    # The user expects the run to resume, so an empty folder of checkpoints needs a word.
    if unsaved:
        screen.note("No checkpoint was committed yet: starting at step 0.")


def show_end(
    screen: terminal.Terminal,
    steps: int,
    taken: int,
    seconds: float,
    runs: Sequence[tuple[Path, Any]],
    workdir: Path,
    checkpoints: checkpoint.Checkpoints,
) -> None:
    """Shows the end of a complete run of `steps` steps, and the commands that go on.

    This start has taken the last `taken` of them in `seconds`. `runs` are the folders and configs
    of its replicas; the commands are for the first one.
    """
    part = f", {taken:,} of them" if taken < steps else ""
    kept, best = ", ".join(map(str, checkpoints.steps())), checkpoints.best_step()
    screen.banner({
        "complete": f"{texts.counted(steps, 'step')}{part} in {seconds:.0f} s",
        "checkpoints": f"{workdir / 'checkpoints'} ({kept}{f'; best: {best}' if best else ''})",
    })  # fmt: skip
    given = f"--workdir={shlex.quote(str(runs[0][0]))}"
    if best is None:
        given += " --step=latest"
    commands = {
        "evaluate": f"python -m pipeline.evaluate {given}",
        "generate": f"python -m pipeline.generate {given}",
        "tensorboard": _tensorboard(workdir, len(runs)),
    }
    screen.banner(commands, whole=True)


def _tensorboard(workdir: Path, num: int) -> str:
    folder = workdir / "tensorboard" if num == 1 else workdir  # which has a folder for each seed
    return f"tensorboard --logdir {shlex.quote(str(folder))}"
