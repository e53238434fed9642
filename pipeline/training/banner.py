"""What a run says of itself at its start and at its end."""

from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from pipeline import datasets
from pipeline.training import checkpoint


def of_start(
    config: Any, workdir: Path, mesh: Mesh, splits: datasets.Splits, abstract: Any, steps: list[int]
) -> dict[str, str]:
    """Returns names and texts; `steps` are those of the checkpoints, ascending."""
    device = mesh.devices.flat[0]
    axes = " × ".join(f"{name} {size}" for name, size in mesh.shape.items())
    num_params = sum(leaf.size for leaf in jax.tree.leaves(abstract.params))
    batches = len(splits.train) / config.batch_size
    return {
        "model": f"{config.model.name}, {num_params:,} parameters, {config.compute_dtype}",
        "data": f"{config.data.name}: {len(splits.train):,} training and "
        f"{len(splits.heldout):,} held-out examples",
        "devices": f"{mesh.size} × {device.device_kind}, {jax.process_count()} process(es)",
        "mesh": f"{axes}; batch {config.batch_size} = {mesh.size} devices × "
        f"{config.batch_size // mesh.size}, {config.accumulation_steps} accumulation step(s)",
        "steps": f"{steps[-1] if steps else 0:,} of {config.total_steps:,} done; "
        f"{config.total_steps / batches:.1f} epochs in all",
        "workdir": str(workdir),
        "tensorboard": f"tensorboard --logdir {workdir / 'tensorboard'}",
    }


def of_end(
    steps: int, seconds: float, workdir: Path, checkpoints: checkpoint.Checkpoints
) -> dict[str, str]:
    """Returns names and texts of a run that is complete."""
    kept = ", ".join(map(str, checkpoints.steps()))
    return {
        "complete": f"{steps:,} steps in {seconds:.0f} s",
        "checkpoints": f"{workdir / 'checkpoints'} ({kept}; best: {checkpoints.best_step()})",
        "tensorboard": f"{workdir / 'tensorboard'}",
    }
