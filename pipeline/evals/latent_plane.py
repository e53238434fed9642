"""Held-out examples as points in a plane of their latents, coloured by label, factor or KL.

A model of two latents has its own plane. Otherwise the axes are the two principal components of the
posterior's means ("pca"), or the two latents with the highest KL ("kl").
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from pipeline import datasets, evals, models
from pipeline.display import plots
from pipeline.nn import labels
from pipeline.runtime import errors, registry
from pipeline.training import batching, posteriors, step

PROJECTIONS = ("kl", "pca")
FEW = 20  # up to so many classes have distinct colours
MAX_COLUMNS = 3  # panels in a row


class Plane(NamedTuple):
    """Points, and the names of their axes."""

    points: np.ndarray  # [N, 2]
    axes: tuple[str, str]


class Colour(NamedTuple):
    """The quantity or class that colours the points of a panel."""

    name: str
    values: np.ndarray  # [N]
    num_classes: int  # 0: a quantity
    ordered: bool
    class_names: tuple[str, ...] = ()


def make(config: Any, mesh: Mesh, source: datasets.Source) -> Callable[..., Iterator]:
    """Returns the evaluation: state → a plot with a panel for the label and each factor.

    Raises:
        InputError: no Gaussian posterior, only one latent, or an unknown projection.
    """
    evals.check_model(config, "posterior", what="Gaussian posterior", evaluation="latent_plane")
    projection = config.latent_plane.projection
    registry.check(projection, PROJECTIONS, field="latent_plane.projection")
    example = datasets.example_spec(config)
    latents = getattr(models.abstract(config, example), "latent_dim", config.model.latent_dim)
    if latents < 2:
        raise errors.InputError(
            f"config.evals has 'latent_plane', but config.model.latent_dim={latents} is a line: "
            "take it out, or use 2 or more"
        )
    encode = posteriors.encoder(config, mesh)

    def evaluate(state: step.TrainState) -> Iterator[tuple[str, Any]]:
        batches = (batch for _, batch in batching.heldout_batches(source, config, mesh))
        encoded = encode(state, batches)
        yield (
            "heldout/latent_plane",
            lambda: picture(plane(encoded, projection), colours(encoded, example)),
        )

    return evaluate


def plane(encoded: posteriors.Encodings, projection: str) -> Plane:
    """Returns the points of the posterior's means, and the names of the axes."""
    mean, kl = encoded.mean, encoded.kl.mean(axis=0)
    if mean.shape[1] == 2 or projection == "kl":
        x, y = sorted(np.argsort(-kl, kind="stable")[:2])
        return Plane(mean[:, [x, y]], (f"mean of z{x}", f"mean of z{y}"))
    centred = mean.astype(np.float64) - mean.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    # The sign of a direction is arbitrary. A positive largest entry makes steps comparable.
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.sign(directions[np.arange(len(directions)), largest])[:, None]
    # Fewer examples than axes span fewer axes; the points lie at 0 on the others.
    missing = max(0, 2 - len(lengths))
    lengths = np.pad(lengths, (0, missing))
    directions = np.pad(directions, ((0, missing), (0, 0)))
    share = lengths**2 / max(np.sum(lengths**2), np.finfo(np.float64).tiny)
    x, y = (f"principal component {i + 1} ({share[i]:.0%} of the variance)" for i in (0, 1))
    return Plane(centred @ directions[:2].T, (x, y))


def colours(encoded: posteriors.Encodings, example: dict[str, Any]) -> list[Colour]:
    """Returns the label and each factor or attribute that varies, or the KL if none does."""
    found = []
    for name, values in encoded.attributes.items():
        entry = example[name]
        columns = values.reshape(len(values), -1)
        classes = entry.num_classes if isinstance(entry, datasets.Classes) else ()
        class_names = getattr(entry, "class_names", ()) or ((),) * columns.shape[1]
        names = getattr(entry, "names", ()) or [f"{name} {i}" for i in range(columns.shape[1])]
        for i, column in enumerate(columns.T):
            title = names[i].replace("_", " ") if columns.shape[1] > 1 else name
            if column.min() < column.max():
                num = classes[i] if classes else 0
                ordered = columns.shape[1] > 1
                found.append(Colour(title, column, num, ordered, tuple(class_names[i])))
    if not found:
        found.append(Colour("KL to the prior, nats", encoded.kl.sum(axis=1), 0, ordered=True))
    return found


def picture(drawn: Plane, found: list[Colour]) -> np.ndarray:
    """Returns uint8 [H, W, 3]: the same points in every panel."""
    num_columns = min(len(found), MAX_COLUMNS)
    num_rows = -(-len(found) // num_columns)
    size = 3.4 if len(found) > 1 else 5.0
    figure = plots.figure(
        1.0 + 1.15 * size * num_columns,
        0.5 + size * num_rows,
        title=f"Posterior means of {len(drawn.points):,} held-out examples",
    )
    panels = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False)
    for index in range(len(found), panels.size):
        panels.flat[index].set_visible(False)
        panels.flat[index - num_columns].tick_params(labelbottom=True)  # the lowest of its column
    for panel, colour in zip(panels.flat, found, strict=False):
        _panel(figure, panel, drawn, colour)
    figure.supxlabel(drawn.axes[0])
    figure.supylabel(drawn.axes[1])
    return plots.pixels(figure)


def _panel(figure: Any, panel: Any, drawn: Plane, colour: Colour) -> None:
    import matplotlib

    kind, num = "viridis", colour.num_classes
    few = 0 < num <= FEW
    if few and not colour.ordered:
        kind = "tab10" if num <= 10 else "tab20"
    scale = matplotlib.colormaps[kind]
    points = panel.scatter(
        *drawn.points.T,
        c=colour.values,
        s=6,
        linewidths=0,
        cmap=scale.resampled(num) if few else scale,
        vmin=-0.5 if few else None,
        vmax=num - 0.5 if few else None,
    )
    panel.set_title(colour.name)
    bar = figure.colorbar(points, ax=panel, ticks=range(num) if few else None)
    if few and colour.class_names:
        bar.set_ticklabels([labels.drawn(name, i) for i, name in enumerate(colour.class_names)])
