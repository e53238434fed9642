"""Folders of runs: reads what a run wrote, and fills a folder without training."""

import dataclasses

import jax
import numpy as np
import orbax.checkpoint as ocp

from pipeline import datasets
from pipeline.display import event_files
from pipeline.mesh import sharding
from pipeline.runtime import run_config
from pipeline.training import step
from pipeline.training.saving import checkpoint

TIMINGS = ("images_per_second", "ms_per_step", "data_wait_share")


def scalars(workdir):
    """Returns all points except timings; fails if a tag has a step twice or out of order."""
    points = event_files.read_scalars(workdir / "tensorboard")
    for tag, series in points.items():
        steps = [step for step, _ in series]
        assert steps == sorted(set(steps)), tag
    return {tag: series for tag, series in points.items() if not tag.endswith(TIMINGS)}


def committed(workdir):
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def state(workdir, step):
    folder = workdir / "checkpoints" / str(step) / "default"
    return ocp.StandardCheckpointer().restore(folder)["state"]


def assert_equal_trees(one, other):
    left, right = jax.tree.leaves(one), jax.tree.leaves(other)
    assert len(left) == len(right) > 10
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def snapshot(workdir):
    """Returns content and time of every file and folder below, without the folder's own time."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in workdir.rglob("*")
    }


def save_run(workdir, config, scores=(2.0, 1.0)):
    """Saves untrained checkpoints at steps 1, 2, …, with different parameters and these ELBOs."""
    config.optimizer.ema_decay = 0.0  # else `generate` would sample from the averages
    run_config.save(config, workdir)
    checkpoints = checkpoint.Checkpoints(workdir / "checkpoints", config.checkpoint)
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:1])
    state = step.create_state(config, datasets.example_spec(config), mesh)
    for at, score in enumerate(scores, start=1):
        params = jax.tree.map(lambda leaf, at=at: at * leaf, state.params)
        metrics = None if score is None else {"elbo": score}
        checkpoints.save(
            at, dataclasses.replace(state, step=state.step + at, params=params), metrics
        )
    checkpoints.wait()
    checkpoints.close()
    return workdir
