"""The report on one checkpoint of a run that is only read: restored, evaluated, written.

The decision: config, data and evaluations are the run's own, and only what may change on resuming
may differ, so that the figures are those of the training loop.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from pipeline import datasets, evals
from pipeline.display import terminal
from pipeline.mesh import sharding
from pipeline.outputs import report_files, saved_state
from pipeline.runtime import command_line as process_flags
from pipeline.runtime import errors, run_config
from pipeline.training import variance


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
    """Returns the folder of the report, and what its metrics.json holds (figures on process 0).

    Args:
        workdir: the run's.
        choice: "best", "latest", or a step's number.
        asked: "all" that apply, or names of files in `evals/`, comma-separated.
        batch_size: examples of a batch; 0: the run's.
        overrides: arguments --config.field=value.
        out: the folder; None: RUN/reports/<step>/.
        screen: shows progress and warnings.

    Raises:
        InputError: no run, no such checkpoint, or evaluations that don't apply.
    """
    config = _config(workdir, overrides)
    mesh = sharding.make_mesh({"data": -1})  # of these machines, whatever the run's was
    fit_batches(config, batch_size, mesh, screen)
    example = datasets.example_spec(config)
    at, state = saved_state.restore(workdir, choice, config, example, mesh)
    splits = datasets.load(config)
    config = variance.measured(config, splits.train)
    chosen = evals.choose(asked, config, mesh, splits.heldout)
    for name, reason in chosen.left_out.items():
        screen.note(f"{name} is left out: {reason}")
    num = min(config.eval_examples or len(splits.heldout), len(splits.heldout))
    values = evals.run(chosen, state, examples=num, screen=screen)
    warnings = evals.warnings(config, chosen, evals.scalars(values))
    for text in warnings:
        screen.warn(text)
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
            "entries": {name: list(leaf.shape) for name, leaf in example.items()},
        },
        "evaluations": list(chosen.evaluations),
        "left_out": chosen.left_out,
    }
    folder = out or workdir / "reports" / str(at)
    if jax.process_index():
        return folder, {**about, "figures": {}}
    return folder, report_files.write(folder, workdir, config, about, values, warnings)


def _config(workdir: Path, overrides: Sequence[str]) -> ConfigDict:
    """Returns the run's config with what is given on the command line."""
    config = run_config.load(workdir)
    before = run_config.flatten(config)
    for text in overrides:
        name, equals, _ = text.lstrip("-").partition("=")
        process_flags.check_field(name.removeprefix("config."), list(before))
        if not equals:
            raise errors.InputError(f"argument {text!r} has no value: write {text}=value")
    values, arguments = flags.FlagValues(), ["evaluate", *overrides]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
        values(arguments)
    except (flags.Error, TypeError, ValueError) as error:
        raise errors.InputError(" ".join(str(error).split())) from None
    if differing := run_config.differences(before, config):
        raise errors.InputError(f"an evaluation is of the run as it is: {'; '.join(differing)}")
    run_config.check(config)
    return config


def fit_batches(config: Any, asked: int, mesh: Mesh, screen: terminal.Terminal) -> None:
    """Sets the batches of evaluations to what these devices can cut evenly.

    The figures don't hang on it, but for last bits: so a run's own numbers are kept where they fit.
    """
    wanted = asked or config.eval_batch_size or config.batch_size
    config.eval_batch_size = wanted if asked else -(-wanted // mesh.size) * mesh.size

    def check(shards: int) -> None:
        sharding.check_batch(
            config.eval_batch_size,
            mesh=mesh,
            accumulation_steps=1,
            deterministic_shards=shards,
            field="eval_batch_size",
        )

    try:
        check(config.deterministic_shards)
    except errors.InputError as error:
        if not config.deterministic_shards:
            raise
        screen.note(f"last bits may differ from the run's: {error}")
        config.deterministic_shards = 0
        check(0)
