"""How a model that draws codes samples: fields of `config.model.sampling`, overridden by a user."""

from collections.abc import Mapping
from typing import Any

from pipeline.runtime import errors, ranges

NAMES = ("temperature", "top_k", "top_p", "guidance")


def applied(config: Any, options: Mapping[str, Any]) -> Any:
    """Returns the config with these fields of `config.model.sampling`; None leaves one as it is.

    Args:
        config: of the run, locked.
        options: values by the name of the field.

    Raises:
        InputError: the run's model has no such field, or a value is out of its range.
    """
    chosen = {name: value for name, value in options.items() if value is not None}
    if not chosen:
        return config
    section = config.model.get("sampling", {})
    for name, value in chosen.items():
        if name not in section:
            raise errors.InputError(
                f"--{name}={value} is only for runs of code_prior: the run's model "
                f"{config.model.name!r} has no config.model.sampling.{name}; leave it out"
            )
        chosen[name] = _like(section[name], value, name)
        ranges.check({f"model.sampling.{name}": chosen[name]})
    config = config.copy_and_resolve_references().unlock()
    config.model.sampling.update(chosen)
    return config.lock()


def _like(present: Any, value: Any, name: str) -> Any:
    """Returns the value in the type of the present one."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and isinstance(present, float):
        return float(value)
    if is_number and isinstance(present, int) and int(value) == value:
        return int(value)
    kind = "a whole number" if isinstance(present, int) else "a number"
    raise errors.InputError(f"--{name}={value} must be {kind}, such as {present}")
