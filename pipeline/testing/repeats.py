"""Whether a second program computes the same, and a resumed run what the run never stopped does."""

import tempfile
from pathlib import Path
from typing import Any

import jax

from pipeline.mesh import layouts
from pipeline.testing import runs
from pipeline.testing.model_error import HOST, require_equal
from pipeline.testing.subjects import Subject
from pipeline.training.saving import checkpoint


def check(subject: Subject, straight: runs.Trained) -> list[str]:
    """Returns what was checked, or raises a ModelError."""
    run, found = runs.Run(subject, runs.Layout()), []
    half = run.first_state()
    for _ in range(subject.steps - 1):
        half, metrics = run.step(half)
        found.append(metrics)
    text = "differs between two programs of the same step"
    require_equal(found, straight.metrics[:-1], text, tolerance=0, repair=HOST)
    again = run.step(run.first_state())[1]
    text = "differs between two calls of the same step"
    require_equal(again, found[0], text, tolerance=0, repair=HOST)
    last, metrics = run.step(_restored(half, run, subject))
    text = "differs between a run that was resumed and one that never stopped"
    repair = f"keep all state in arrays of the model, which a checkpoint holds; {HOST}"
    resumed = jax.device_get(runs.Trained(layouts.to_tree(last), [*found, metrics]))
    require_equal(resumed, straight, text, tolerance=0, repair=repair)
    return ["two programs, and a run resumed from a checkpoint, have the same bits"]


def _restored(state: Any, run: runs.Run, subject: Subject) -> Any:
    """Returns the state after a way through a checkpoint in a temporary folder."""
    section = subject.config.checkpoint.copy_and_resolve_references()
    section.atomicity = "auto"  # whatever file system the run is for
    with tempfile.TemporaryDirectory() as folder:
        kept = checkpoint.Checkpoints(Path(folder).resolve(), section)
        at = int(state.step)
        kept.save(at, state, None)
        kept.wait()
        tree = layouts.of_tree(run.abstract(), run.mesh)
        restored = kept.restore(at, tree, run.mesh)
        kept.close()
    return restored
