"""What a start warns of: fields without effect, schedules that the run cuts or outlives, colours.

None of it stops the run. A field counts as without effect if its value is the user's own and
nothing that was built has read it (`runtime.reads`).
"""

import math
from collections.abc import Iterator
from typing import Any

import jax

from pipeline.nn import schedules
from pipeline.runtime import registry, run_config

# Fields of these sections are read by what the config chooses: a model, a data set, an optimizer.
CHOSEN = ("model", "data", "optimizer")
# Training reads these for every data set.
COMMON = (
    *("name", "binarize", "train_examples", "num_threads", "prefetch_batches", "resident"),
    *("augment.flip", "augment.min_area", "augment.max_aspect"),
)
COMMON_DATA = {*(f"data.{name}" for name in COMMON), "data.accept_changes", "data.seed"}
# Fields that training reads only if another field has, or lacks, a value.
IF = {
    "guard.leap_sigmas": ("guard.action", lambda action: action != "off"),
    "guard.max_rollbacks": ("guard.action", lambda action: action == "rollback"),
    "checkpoint.best_metric": ("checkpoint.keep_best", bool),
    "checkpoint.best_mode": ("checkpoint.keep_best", bool),
    "data.augment.max_aspect": ("data.augment.min_area", lambda area: area < 1),
    "data.num_threads": ("data.resident", lambda resident: not resident),
    "data.prefetch_batches": ("data.resident", lambda resident: not resident),
    "eval_examples": ("evals", bool),
    "eval_batch_size": ("evals", bool),
    "traversals.num": ("traversals.examples", lambda examples: not examples),
    "traversals.range": ("traversals.axis", lambda axis: axis == "prior"),
}
MANY_PARAMETERS = 5e6


def of_fields(asked: Any, seen: set[str], *, opened: bool) -> list[str]:
    """Returns a text for each field that has a value of its own and no effect.

    Args:
        asked: the config as the user gave it.
        seen: the fields that were read while model, optimizer and data set were built.
        opened: whether the data set is open; if it is not, its fields are not judged.
    """
    flat = run_config.flatten(asked)
    known = _known_values(flat["model.name"])
    return [
        f"config.{field}={_shown(value)} has no effect {reason}"
        for field, value in flat.items()
        if value not in known.get(field, ())
        for reason in _reasons(field, flat, seen, known, opened)
    ]


def of_schedules(config: Any) -> list[str]:
    """Returns a text for each schedule that the run does not finish, or that ends it too early."""
    total, texts = config.total_steps, []
    for name in run_config.schedules(run_config.flatten(config)):
        section = run_config.section(config, name)
        if section.schedule in ("linear", "cosine") and section.steps > total:
            last = float(schedules.make(section, field=name)(total))
            texts.append(
                f"config.{name}.steps={section.steps}: the run ends before the schedule, at step "
                f"{total}, where the value is {last:.3g} and not {section.end:g}; 0 means the "
                "length of the run"
            )
        if section.schedule == "cyclical" and 2 * total < section.steps:
            last = float(schedules.make(section, field=name)(total))
            texts.append(
                f"config.{name}.steps={section.steps}: the run ends at step {total}, in the first "
                f"half of the first cycle, where the value is {last:.3g} and not {section.end:g}; "
                "0 means the length of the run"
            )
    rate = config.optimizer
    if rate.warmup_steps >= total:
        texts.append(
            f"config.optimizer.warmup_steps={rate.warmup_steps}: the run ends at step {total}, "
            "before the learning rate is reached; -1 means a fiftieth of the run"
        )
    if rate.schedule == "cosine" and rate.decay_steps > total:
        texts.append(
            f"config.optimizer.decay_steps={rate.decay_steps}: the run ends before the schedule, "
            f"at step {total}; 0 means the length of the run"
        )
    if rate.schedule == "cosine" and rate.decay_steps < total:
        texts.append(
            f"config.optimizer.decay_steps={rate.decay_steps}: the learning rate is 0 from there "
            f"to the run's end at step {total}, so nothing more is learnt; a longer run needs a "
            "new --workdir"
        )
    return texts


def of_images(config: Any, example: Any, abstract: Any) -> list[str]:
    """Returns a text if the model's likelihood or network suits no colour images."""
    model, texts = config.model, []
    if "image" not in example or example["image"].shape[-1] != 3:
        return []
    if model.get("likelihood") == "bernoulli":
        texts.append(
            "config.model.likelihood='bernoulli' takes each colour of a pixel for the chance of a "
            "coin, which blurs photos: --config.model.likelihood=gaussian suits colours"
        )
    num = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract.params)) / config.replicas
    if model.get("network") == "dense" and num > MANY_PARAMETERS:
        texts.append(
            f"config.model.network='dense' has {num / 1e6:.1f} million parameters for images of "
            f"{'×'.join(map(str, example['image'].shape))}: --config.model.network=conv has fewer, "
            "and suits photos"
        )
    return texts


def _reasons(
    field: str, flat: dict[str, Any], seen: set[str], known: dict[str, Any], opened: bool
) -> Iterator[str]:
    """Yields why the field has no effect; at most one reason."""
    section, _, name = field.partition(".")
    condition, reads = IF.get(field, ("", bool))
    if condition and not reads(flat[condition]):
        yield f"with config.{condition}={_shown(flat[condition])}"
    elif section in CHOSEN:
        reader = "model" if field == "data.variance" else section
        if field not in seen | COMMON_DATA and (opened or reader != "data"):
            yield f"with {_parts(reader, flat)}"
    elif name and section in registry.names("evals"):
        if section not in flat["evals"]:
            yield f"in training, as config.evals does not name {section!r}; `evaluate` may read it"
    # A field that configs/default.py does not have may be for an evaluation from outside.
    elif field not in {*known, *seen} and not any("." in one for one in flat["evals"]):
        yield "as nothing reads it; configs/default.py has the fields that every run reads"


def _parts(section: str, flat: dict[str, Any]) -> str:
    """Returns the fields that chose what reads a section, such as "model.network='conv'"."""
    names = (
        *("model.name", "model.network", "model.likelihood", "model.quantizer.name"),
        *("data.name", "optimizer.name", "optimizer.schedule"),
    )
    return ", ".join(f"{n}={flat[n]!r}" for n in names if n in flat and n.startswith(section))


def _known_values(model: str) -> dict[str, list[Any]]:
    """Returns the values of each field that no user chose: the defaults, and the variant's own."""
    found: dict[str, list[Any]] = {}
    for config in run_config.shipped(model):
        for field, value in run_config.flatten(config).items():
            found.setdefault(field, []).append(value)
    return found


def _shown(value: Any) -> str:
    return str(tuple(value)) if isinstance(value, list) else repr(value)
