"""Where an exported model comes from: its figures, and commands that make the same again.

An export may be published, so a command names the run's folder and no place on this computer.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.outputs import saved_reports
from pipeline.runtime import config_file, errors, registry, run_config
from pipeline.training.saving import checkpoint_folder

# Fields that are places on this computer, and what stands for them in a command.
PLACES = {"data.path": "DATA", "compilation_cache": "auto"}


class Figures(NamedTuple):
    """Held-out figures of one checkpoint, and how they came about."""

    values: Mapping[str, float]  # finite ones by name
    text: str


def figures(workdir: Path, step: int) -> Figures:
    """Returns the figures of a report on the step, else those of the training loop, else none."""
    command = f"`python -m pipeline.evaluate --workdir={_run(workdir)} --step={step}`"
    try:
        report = saved_reports.read(workdir / "reports" / str(step), workdir)
    except saved_reports.Damaged:
        report = None
    if report is not None:
        values = {name: value for name, value in report["figures"].items() if value is not None}
        text = f"Step {step:,}, {report['examples']:,} held-out examples, by {command}."
        return Figures(values, text)
    values, fault = checkpoint_folder.figures(workdir / "checkpoints" / str(step))
    if values and not fault:
        text = f"Step {step:,}, held-out figures of the training loop. {command} computes more."
        return Figures(values, text)
    return Figures({}, f"There are none for step {step:,}: {command} computes them.")


def training_command(config: Any, workdir: Path) -> str:
    """Returns a command that trains the run's config, from the most similar config of ours.

    A place such as the data's folder is left to the reader, as in `--config.data.path=DATA`.
    """
    flat = run_config.flatten(config)
    wanted = {name: PLACES.get(name, value) if value else value for name, value in flat.items()}
    if not (commands := _commands(wanted)):  # of a model from outside this package
        return "# config.json has the config that trained it"
    given, overrides = min(commands, key=lambda found: len(found[1]))
    arguments = [f"--config=configs/{given}", f"--workdir={_run(workdir)}", *overrides]
    return shlex.join(["python", "-m", "pipeline.train", *arguments])


def export_command(workdir: Path, out: Path, step: int, arguments: list[str]) -> str:
    """Returns the command of this export; `arguments` are further ones."""
    given = [f"--workdir={_run(workdir)}", f"--out={out.name}", f"--step={step}", *arguments]
    return shlex.join(["python", "-m", "pipeline.export", *given])


def _run(workdir: Path) -> str:
    return f"runs/{workdir.name}"


def _commands(wanted: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Returns names of configs with presets, and the overrides that lead from them to the run."""
    stems = sorted(path.stem for path in registry.CONFIGS.glob("*.py"))
    data, found = wanted["data.name"], []
    for stem in [one for one in stems if one not in config_file.HIDDEN]:
        for presets in ("", "smoke", data, f"{data},smoke"):
            try:
                start = run_config.flatten(registry.config(stem).get_config(presets))
            except errors.InputError:  # data of the user's own module are no preset
                continue
            changed = [name for name, value in wanted.items() if start.get(name, ...) != value]
            given = f"{stem}.py{':' if presets else ''}{presets}"
            if wanted.keys() == start.keys():
                found.append((given, [_override(name, wanted[name]) for name in changed]))
    return found


def _override(name: str, value: Any) -> str:
    return f"--config.{name}={tuple(value) if isinstance(value, list) else value}"
