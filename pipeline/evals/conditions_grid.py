"""Samples of a conditional model: one row per label, and the same z along a column."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline import datasets
from pipeline.display import pictures
from pipeline.nn import labels
from pipeline.runtime import errors
from pipeline.training import batching, evaluation, step

NULL = "none"  # the row of the null class


def make(config: Any, mesh: Mesh, source: datasets.Source) -> Callable[..., Iterator]:
    """Returns the evaluation: state → a labelled grid.

    If the only condition is one column of classes, the rows are the classes. Otherwise they are the
    conditions of the first held-out examples. If the null class was trained, it is the last row.

    Raises:
        InputError: the model has no conditions, or a field of `config.conditions_grid` is below 1.
    """
    del mesh
    names = tuple(config.model.get("conditions", ()))
    if not names:
        raise errors.InputError(
            f"config.evals has 'conditions_grid', but config.model.name={config.model.name!r} has "
            "no conditions: take it out, or choose conditional_vae"
        )
    settings = config.conditions_grid
    for field in ("rows", "columns"):
        errors.check_range(f"config.conditions_grid.{field}", settings[field], 1)
    # The rows depend only on the config and the data, so they are the same at every step.
    example = datasets.example_spec(config)
    conditions = {name: example[name] for name in names}
    shown = rows(config, source, conditions)
    sample = evaluation.make_method(config, example, "sample")
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))

    # Every row has the same keys, so the same z recurs along a column.
    def evaluate(state: step.TrainState) -> Iterator[tuple[str, Any]]:
        numbers = np.arange(settings.columns, dtype=np.uint32)
        keys = fold(jax.random.key(config.seed), np.tile(numbers, len(shown.texts)))
        entries = {
            name: entry.repeat(settings.columns, axis=0) for name, entry in shown.entries.items()
        }
        images, texts = np.asarray(jax.device_get(sample(state, keys, entries))), list(shown.texts)
        if config.model.label_dropout:
            without = jax.device_get(sample(state, keys[: settings.columns]))
            images, texts = np.concatenate([images, np.asarray(without)]), [*texts, NULL]
        yield "heldout/conditions_grid", lambda: picture(images, texts, names)

    return evaluate


def rows(config: Any, source: datasets.Source, conditions: dict[str, Any]) -> labels.Rows:
    """Returns the conditions of the rows."""
    most = config.conditions_grid.rows
    entry = next(iter(conditions.values()))
    if len(conditions) == 1 and isinstance(entry, datasets.Classes) and not entry.shape:
        return labels.rows(np.arange(min(most, entry.num_classes[0]))[:, None], conditions)
    examples = batching.first_images(source, config, most)
    table = np.concatenate(
        [examples[name].reshape(len(examples["mask"]), -1) for name in conditions], axis=1
    )
    return labels.rows(np.array(list(dict.fromkeys(map(tuple, table.tolist())))), conditions)


def picture(images: np.ndarray, texts: list[str], names: tuple[str, ...]) -> np.ndarray:
    """Returns uint8 [H, W, C]: images [rows · columns, h, w, C] in [0, 1], each row with a text."""
    grid = pictures.grid(pictures.enlarged(images), columns=len(images) // len(texts))
    title = f"Samples by {', '.join(names)}; the same z along a column"
    title = pictures.caption(title, images.shape[-1])
    return pictures.to_uint8(pictures.framed(grid, rows=texts, title=title))
