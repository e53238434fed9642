"""The config of a saved run, with the overrides that a command may make."""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from pipeline.runtime import command_line, errors, run_config


def load(workdir: Path, overrides: Sequence[str] = ()) -> ConfigDict:
    """Returns the run's config with overrides of fields that a resumed run may change.

    Args:
        workdir: of the run.
        overrides: arguments --config.field=value, such as --config.data.path of moved data.

    Raises:
        InputError: an unknown field, an invalid value, or a field that must stay the run's.
    """
    config = run_config.load(workdir)
    if config.replicas > 1:
        raise errors.InputError(
            f"--workdir={workdir} trains {config.replicas} seeds in one program: take the folder "
            f"of one, such as {workdir}/seed{config.seed}, which is made when they are done"
        )
    before = run_config.flatten(config)
    config = command_line.overridden(config, overrides)
    if differing := run_config.differences(before, config):
        raise errors.InputError(f"an evaluation is of the run as it is: {'; '.join(differing)}")
    run_config.check(config, evaluating=True)
    return config


def split(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Returns the arguments without overrides, and the overrides; the run's config is not read."""
    overrides = tuple(text for text in arguments if text.lstrip("-").startswith("config."))
    return [text for text in arguments if text not in overrides], overrides
