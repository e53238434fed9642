"""Makes the report on one checkpoint of a run: restores it, evaluates it, and writes the files.

The run itself is only read. Config, data and evaluations are the run's own. Overrides may change
only fields that may change on resuming, so the figures equal those of the training loop.
"""

import datetime
import platform
import shlex
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from pipeline import datasets, evals
from pipeline.display import terminal, texts
from pipeline.outputs import report_files, saved_settings, saved_state
from pipeline.runtime.storage import faults
from pipeline.training import fingerprint, setup


def make(
    workdir: Path,
    choice: str,
    *,
    asked: str,
    batch_size: int,
    overrides: Sequence[str],
    out: Path | None,
    screen: terminal.Terminal,
) -> tuple[Path, dict[str, Any]]:
    """Returns the folder of the report and the contents of metrics.json (figures on process 0).

    Args:
        workdir: of the run.
        choice: "best", "latest", or the number of a step.
        asked: names of evaluations, separated by commas; "all" for all that apply; "quick"
            for these without the slow ones.
        batch_size: examples in a batch; 0 means the run's batch size.
        overrides: arguments --config.field=value.
        out: the folder; None means RUN/reports/<step>/.
        screen: shows progress and warnings.

    Raises:
        InputError: no run, no such checkpoint, or evaluations that do not apply.
    """
    # The mesh has all devices at hand, even if the run's mesh was another.
    config = saved_settings.load(workdir, overrides)
    ready = setup.prepare_evaluation(config, batch_size=batch_size, note=screen.note)
    at, state = saved_state.restore(workdir, choice, ready)
    where = out or workdir / "reports" / str(at)
    faults.check_writable(where, hint="; --out=DIR names another folder")
    ready = setup.with_data(ready)
    config, mesh, splits = ready.config, ready.mesh, ready.opened
    for text in fingerprint.changes(splits, workdir):
        screen.warn(text)
    # Every process runs every evaluation, because the model needs all devices.
    chosen = evals.choose(asked, config, mesh, splits.heldout)
    for text in chosen.slow:
        screen.note(text)
    num = min(config.eval_examples or len(splits.heldout), len(splits.heldout))
    values = evals.run(chosen, state, examples=num, screen=screen)
    warnings = evals.warnings(config, chosen, evals.scalars(values))
    for text in warnings:
        screen.warn(text)
    # What describes the run in metrics.json must not depend on devices and batches.
    about = {
        "run": workdir.name,
        "workdir": str(workdir),
        "step": at,
        "choice": choice if choice in ("best", "latest") else "",
        "seed": config.seed,
        "examples": num,
        "model": config.model.name,
        "data": {
            "name": config.data.name,
            "train": len(splits.train),
            "heldout": len(splits.heldout),
            "entries": {name: list(leaf.shape) for name, leaf in ready.example.items()},
            "classes": datasets.class_names(ready.example),
        },
        "evaluations": list(chosen.evaluations),
        "left_out": chosen.left_out,
    }
    # Only process 0 has the pictures and writes.
    folder = out or workdir / "reports" / str(at)
    if jax.process_index():
        return folder, {**about, "figures": {}, "files": {}}
    made = _made(ready, workdir, at, asked, overrides)
    return folder, report_files.write(folder, workdir, config, about, values, warnings, made)


def _made(
    ready: setup.Setup, workdir: Path, at: int, asked: str, overrides: Sequence[str]
) -> dict[str, str]:
    """Returns names and texts that say how the report was made, and on what."""
    given = [f"--workdir={workdir}", f"--step={at}", f"--evals={asked}"]
    command = shlex.join(["python", "-m", "pipeline.evaluate", *given, *overrides])
    packages = ("vae-pipeline", "jax", "jaxlib", "flax", "optax", "numpy")
    versions = [f"{name} {_version(name)}" for name in packages]
    num_params = sum(leaf.size for leaf in jax.tree.leaves(ready.abstract.params))
    kind = ready.mesh.devices.flat[0].device_kind
    return {
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command,
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
        "devices": f"{ready.mesh.size} × {kind}, {texts.counted(jax.process_count(), 'process')}",
        "parameters": f"{num_params:,}",
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # a checkout that was not installed
        return "?"
