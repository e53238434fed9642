"""A run's config: checked before anything is built, saved with the run, compared on resuming."""

import ast
import re
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from pipeline.runtime import errors, files, ranges, registry
from pipeline.runtime.workdir import contents, saved_config

# The fields that may change when a run is resumed: its length, what is shown and kept, and where it
# runs. An evaluation's own section, which has the evaluation's name, may also change.
MAY_CHANGE = (
    "total_steps",
    "log_every_steps",
    "look_every_steps",
    "steps_per_dispatch",
    "eval_every_steps",
    "eval_examples",
    "eval_batch_size",
    "evals",
    "compilation_cache",
    "grace_seconds",
    "guard.",
    "watchdog_seconds",
    "checkpoint.",
    "model.sampling.",
    "mesh.",
    "accumulation_steps",
    "data.path",
    "data.accept_changes",
    "data.copy",
    "data.max_corrupt_files",
    "data.num_threads",
    "data.resident",
    "data.prefetch_batches",
)
DTYPES = ("float32", "bfloat16")
# What a field that an older version lacks means there, if today's default means something else.
OLD: dict[str, Any] = {"compute_dtype": "float32", "data.heldout_examples": 10_000}
# The same for a field that one model's config has.
OLD_OF: dict[str, dict[str, Any]] = {"factor_vae": {"optimizer.own_betas.discriminator": []}}
SCHEDULE = ("schedule", "start", "end", "steps")  # the fields of a section for `nn.schedules`


def check(config: Any, *, evaluating: bool = False) -> None:
    """Checks every number, and the fields that no other module checks.

    Args:
        config: of a run.
        evaluating: whether a saved run is evaluated. What only training reads is not checked then.

    Raises:
        InputError: a value that cannot work.
    """
    flat = flatten(config)
    if evaluating:
        flat = {field: flat[field] for field in flat if not field.startswith(ranges.TRAINING)}
    ranges.check(flat)
    if not evaluating and len(set(config.evals)) < len(config.evals):
        raise errors.InputError(
            f"config.evals={tuple(config.evals)} must name each evaluation once: take the others "
            "out"
        )
    modes = ("auto", "min", "max")
    registry.check(config.checkpoint.best_mode, modes, field="checkpoint.best_mode")
    kinds = ("auto", "commit_file")
    registry.check(config.checkpoint.atomicity, kinds, field="checkpoint.atomicity")


def settled(config: Any, platform: str, workdir: Path | None = None) -> Any:
    """Returns the config with what its open fields stand for: "auto" or 0, which leave the choice.

    A resumed run keeps what was chosen at its first start. So it keeps its dtype on another
    platform, and its schedules if it is prolonged. A share of the data stays open until they are.

    Args:
        config: of a run; if no field is open, it is returned unchanged.
        platform: "cpu", or that of an accelerator.
        workdir: where a saved run may lie.

    Raises:
        InputError: an unknown dtype.
    """
    flat = flatten(config)
    registry.check(flat["compute_dtype"], ("auto", *DTYPES), field="compute_dtype")
    chosen = _choices(flat, platform)
    if workdir is not None and saved_config.exists(workdir):
        saved = completed(saved_config.read(workdir))
        kept = {field: saved[field] for field in chosen if field in saved}
        chosen |= {field: value for field, value in kept.items() if value != flat[field]}
    if all(flat[field] == value for field, value in chosen.items()):
        return config
    return nested(flat | chosen)


def schedules(flat: dict[str, Any]) -> list[str]:
    """Returns the names of the sections that are schedules, such as "model.beta"."""
    names = [field.removesuffix(".schedule") for field in flat if field.endswith(".schedule")]
    return [name for name in names if {f"{name}.{part}" for part in SCHEDULE} <= flat.keys()]


def _choices(flat: dict[str, Any], platform: str) -> dict[str, Any]:
    """Returns the fields that are left open, and what a new run takes for each of them."""
    steps, cosine = flat["total_steps"], flat["optimizer.schedule"] == "cosine"
    choices = {
        "compute_dtype": ("auto", "float32" if platform == "cpu" else "bfloat16"),
        "data.heldout_examples": (0, 0),  # a share of the data, which are not open yet
        "optimizer.warmup_steps": (-1, steps // 50),
        "optimizer.decay_steps": (0, steps if cosine else 0),
    }
    for name in schedules(flat):
        constant = flat[f"{name}.schedule"] == "constant"
        choices[f"{name}.steps"] = (0, 0 if constant else steps)
    return {field: choice for field, (left, choice) in choices.items() if flat.get(field) == left}


def section(config: Any, name: str) -> Any:
    """Returns what a dotted name such as "model.beta" means in the config."""
    for part in name.split("."):
        config = config[part]
    return config


def data_seed(config: Any) -> int:
    """Returns `data.seed`, or the run's own if that is -1; runs of several seeds may share it.

    It draws the held-out split, the order of examples, and which of them a codebook looks at.
    """
    return config.seed if config.data.seed < 0 else config.data.seed


def shipped(model: str = "") -> list[ConfigDict]:
    """Returns configs/default.py, and with it the config of a model of ours and its smoke test."""
    found = [registry.config("default").get_config()]
    if (registry.CONFIGS / f"{model}.py").is_file():
        module = registry.config(model)
        found += [module.get_config(presets) for presets in ("", "smoke")]
    return found


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns {"model.name": …} with the types of JSON; tuples become lists."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if hasattr(value, "items"):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat


def hyperparameters(config: Any) -> dict[str, bool | float | str]:
    """Returns the fields that decide what a run learns, flat; a list becomes a text."""
    may_change = _may_change(config)
    return {
        field: value if isinstance(value, bool | int | float) else str(value)
        for field, value in flatten(config).items()
        if field == "total_steps" or not field.startswith(may_change)
    }


def differences(saved: dict[str, Any], config: Any) -> list[str]:
    """Returns a text for every field that differs although it must not change on resuming."""
    flat = flatten(config)
    missing, may_change = object(), _may_change(config)
    return [
        f"config.{field} is {flat.get(field)!r}, was {saved.get(field)!r}"
        for field in sorted(saved.keys() | flat.keys())
        if saved.get(field, missing) != flat.get(field, missing)
        and not field.startswith(may_change)
    ]


def _may_change(config: Any) -> tuple[str, ...]:
    """Returns the prefixes of the fields that may change on resuming."""
    # The section of an evaluation from outside, my_package.my_evaluation, has the last part's name.
    evaluations = {
        *registry.names("evals"),
        *(str(name).rpartition(".")[2] for name in config.evals),
    }
    return (*MAY_CHANGE, *(f"{name}." for name in sorted(evaluations)))


def changed(config: Any, changes: str) -> ConfigDict:
    """Returns a copy of the config with other values.

    Args:
        config: of a run.
        changes: FIELD=VALUE pairs, separated by commas.

    Raises:
        InputError: a field that does not exist, or a value of another type.
    """
    flat = flatten(config)
    for change in re.split(r",(?=[a-z_.0-9]+=)", changes):
        field, _, text = change.strip().partition("=")
        registry.check(field, flat, field="field")
        try:
            value = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            value = text
        if type(value) is not type(flat[field]) and not (
            (isinstance(value, int | tuple) and isinstance(flat[field], float | list))
            or field in ranges.PAIRS
        ):
            raise errors.InputError(
                f"config.{field}={text} must be like its present value, {flat[field]!r}"
            )
        flat[field] = value
    return nested(flat)


def check_against_run(config: Any, workdir: Path) -> bool:
    """Says whether `workdir` holds a run of this config, which would then be resumed.

    Raises:
        InputError: it holds a run of another config, a run that lost its checkpoints, or files that
            do not belong to a run.
    """
    if files.exists(workdir) and not workdir.is_dir():
        raise errors.InputError(f"--workdir={workdir} must be a folder, or a name that is free")
    if not workdir.exists() or contents.is_empty(workdir):
        return False
    if not saved_config.exists(workdir):
        if contents.committed(workdir):
            raise errors.InputError(
                f"--workdir={workdir} holds checkpoints and no config.json: train one step with "
                "that run's settings in a new --workdir (--config.total_steps=1), and copy its "
                "config.json here"
            )
        raise errors.InputError(
            f"--workdir={workdir} exists and holds no run (config.json is missing): choose a new "
            "or an empty folder"
        )
    # A config of the user's own may lack fields that the variant's shipped config has by now.
    ours = nested(completed(flatten(config)))
    if differing := differences(completed(saved_config.read(workdir)), ours):
        raise errors.InputError(
            f"--workdir={workdir} holds another run: {'; '.join(differing)}. Use its values, "
            "or a new --workdir"
        )
    marked = config.checkpoint.atomicity == "commit_file"
    contents.check_checkpoints(workdir, marked=marked)
    return True


def load(workdir: Path) -> ConfigDict:
    """Returns the config that `save` wrote, locked; fields missing in an older one get defaults.

    Raises:
        InputError: the folder holds no run, or its config.json is damaged.
    """
    if not saved_config.exists(workdir):
        raise errors.InputError(f"--workdir={workdir} holds no run: there is no config.json in it")
    saved = saved_config.read(workdir)
    fields = completed(saved)
    with_ours = flatten(shipped()[0]) | saved  # a section of ours may be a number there
    if fault := saved_config.fault_of(with_ours) or saved_config.fault_of(fields):
        raise errors.InputError(f"{workdir / 'config.json'} is damaged ({fault}): put a copy there")
    return nested(fields)


def completed(saved: dict[str, Any]) -> dict[str, Any]:
    """Returns a saved run's fields, with those that its version did not know at their old meaning.

    A field is added with a default that leaves old runs as they were, except for those in `OLD`.
    """
    fields: dict[str, Any] = {}
    for config in shipped(saved.get("model.name", ""))[:2]:
        own = flatten(config).items()
        fields |= {f: v for f, v in own if not f.startswith("model.") or _belongs(f, saved)}
    old = OLD | OLD_OF.get(saved.get("model.name", ""), {})
    return fields | {f: v for f, v in old.items() if f in fields} | saved


def _belongs(field: str, saved: dict[str, Any]) -> bool:
    """Says whether a field of the model's default may be missing in an older run's section."""
    # A schedule may be a plain number, and a section may be missing as a whole.
    sections = field.split(".")[:-1]
    return not any(".".join(sections[:end]) in saved for end in range(1, len(sections) + 1))


def save(config: Any, workdir: Path) -> None:
    """Writes `config.json` atomically; on resuming the new values replace the old ones."""
    saved_config.write(workdir, flatten(config))


def nested(flat: dict[str, Any]) -> ConfigDict:
    """Returns the config that `flatten` made flat, locked."""
    nested: dict[str, Any] = {}
    for field, value in flat.items():
        *sections, name = field.split(".")
        section = nested
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = tuple(value) if isinstance(value, list) else value
    return ConfigDict(nested).lock()
