"""Traversals: held-out examples are decoded repeatedly while one latent at a time moves.

Latents are sorted by their KL to the prior, the largest first. Those that carry no information come
last and change nothing. All images are decoded in one batch.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from pipeline import datasets, evals
from pipeline.display import pictures
from pipeline.runtime import errors, registry
from pipeline.training import batching, posteriors, step

# The unit of a latent's values, by the distribution that they come from.
AXES = {
    "prior": "standard deviations of the prior",
    "posterior": "quantile of the posterior's means",
}
FRAME_COLUMNS = 10  # latents in a row of the animation


class Traversals(NamedTuple):
    """What is drawn: S examples, L latents, T values of each latent."""

    positions: np.ndarray  # [S], of the examples in the held-out data
    inputs: np.ndarray  # [S, H, W, C] in [0, 1]
    decoded: np.ndarray  # [S, H, W, C] in [0, 1], from the examples' own latents
    images: np.ndarray  # [S, L, T, H, W, C] in [0, 1]
    latents: np.ndarray  # [L], the largest KL first
    kl: np.ndarray  # [L] nats
    axis: str  # unit of the values
    values: tuple[str, ...]  # T texts


def make(config: Any, mesh: Mesh, source: datasets.Source) -> Callable[..., Iterator]:
    """Returns the evaluation: state → a labelled grid, and an animation of the same images.

    Raises:
        InputError: no Gaussian posterior, or a field of `config.traversals` that cannot work.
    """
    evals.check_model(config, "posterior", what="Gaussian posterior", evaluation="traversals")
    positions = _positions(config, len(source))
    encode, decode = posteriors.encoder(config, mesh), posteriors.decoder(config)
    examples = batching.read(source, positions, config)
    inputs = datasets.pixels_of(datasets.example_spec(config)["image"]).unit(examples.pop("image"))

    def evaluate(state: step.TrainState) -> Iterator[tuple[str, Any]]:
        batches = (batch for _, batch in batching.heldout_batches(source, config, mesh))
        encoded = encode(state, batches)
        found = _traverse(config.traversals, encoded, positions, inputs, examples, decode, state)
        yield "heldout/traversals", lambda: picture(found)
        yield "heldout/traversals_animated", lambda: animation(found)

    return evaluate


def moved(z: np.ndarray, latents: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns copies of latent vectors, each with one entry replaced.

    Args:
        z: [S, D].
        latents: [L], the entries to replace.
        values: [L, T], the values of each entry.

    Returns:
        [S, L, T, D].
    """
    copies = np.tile(z[:, None, None], (1, *values.shape, 1))
    for row, latent in enumerate(latents):
        copies[:, row, :, latent] = values[row]
    return copies


def _positions(config: Any, num_heldout: int) -> np.ndarray:
    """Returns the positions of the examples that the config lists, or else that the seed draws."""
    settings = config.traversals
    registry.check(settings.axis, AXES, field="traversals.axis")
    known = min(config.eval_examples or num_heldout, num_heldout)
    for field, least in (("steps", 2), ("num", 1), ("latents", 0)):
        errors.check_range(f"config.traversals.{field}", settings[field], least)
    if not settings.range > 0:
        raise errors.InputError(f"config.traversals.range={settings.range} must be above 0")
    chosen = tuple(settings.examples)
    if any(not 0 <= position < known for position in chosen) or settings.num > known:
        raise errors.InputError(
            f"config.traversals.examples={chosen}, num={settings.num}: {known} held-out examples "
            f"are evaluated, numbered 0 to {known - 1}"
        )
    # RandomState, not Generator: its stream is frozen (NEP 19), so the examples never change.
    drawn = np.random.RandomState(config.seed % 2**32).permutation(known)[: settings.num]
    return np.array(chosen or drawn, np.int64)


def _traverse(
    settings: Any,
    encoded: posteriors.Encodings,
    positions: np.ndarray,
    inputs: np.ndarray,
    examples: dict[str, np.ndarray],
    decode: Callable[..., np.ndarray],
    state: step.TrainState,
) -> Traversals:
    kl = encoded.kl.mean(axis=0)
    latents = np.argsort(-kl, kind="stable")[: settings.latents or len(kl)]
    values, texts = _axis(settings, encoded.mean[:, latents])
    own = encoded.mean[positions]
    z = np.concatenate([moved(own, latents, values).reshape(-1, own.shape[1]), own])
    rows = {
        name: np.concatenate([array.repeat(values.size, axis=0), array])
        for name, array in examples.items()
    }
    images = decode(state, z, rows)
    split = len(positions) * values.size
    return Traversals(
        positions=positions,
        inputs=inputs,
        decoded=images[split:],
        images=images[:split].reshape(len(positions), *values.shape, *images.shape[1:]),
        latents=latents,
        kl=kl[latents],
        axis=AXES[settings.axis],
        values=texts,
    )


def _axis(settings: Any, means: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the values of each latent, [L, T], and the texts above the T columns.

    Args:
        settings: the config's section `traversals`.
        means: [N, L], means of the posteriors.
    """
    if settings.axis == "prior":
        line = np.linspace(-settings.range, settings.range, settings.steps, dtype=np.float32)
        return np.tile(line, (means.shape[1], 1)), tuple(f"{value:.3g}" for value in line)
    shares = np.linspace(0.01, 0.99, settings.steps)
    return np.quantile(means, shares, axis=0).T, tuple(f"{share:.0%}" for share in shares)


def picture(found: Traversals) -> np.ndarray:
    """Returns uint8 [H, W, C]: a block per example, with a row per latent, a column per value."""
    return pictures.to_uint8(
        pictures.stacked([_block(found, index) for index in range(len(found.positions))])
    )


def _block(found: Traversals, index: int) -> np.ndarray:
    images = found.images[index]
    num_values, title = images.shape[1], f"Held-out example {found.positions[index]}"
    grid = pictures.grid(
        pictures.enlarged(images.reshape(-1, *images.shape[2:])), columns=num_values
    )
    own = pictures.enlarged(np.stack([found.inputs[index], found.decoded[index]]))
    labels = [f"z{d}   {kl:.2f} nats" for d, kl in zip(found.latents, found.kl, strict=True)]
    return pictures.stacked(
        [
            pictures.framed(
                pictures.grid(own, columns=2),
                columns=("input", "decoded"),
                title=pictures.caption(title, images.shape[-1]),
            ),
            pictures.framed(
                grid,
                rows=labels,
                columns=found.values,
                title=f"A row moves one latent. Left: its KL to the prior; above: {found.axis}",
            ),
        ]
    )


def animation(found: Traversals) -> np.ndarray:
    """Returns frames uint8 [T′, H, W, C], there and back: a column a latent, a row an example."""
    num_values = found.images.shape[2]
    there = [pictures.to_uint8(_frame(found, value)) for value in range(num_values)]
    # The title names the value, and its width may exceed that of a few images.
    return pictures.alike(there + there[-2:0:-1])


def _frame(found: Traversals, value: int) -> np.ndarray:
    blocks: list[np.ndarray] = []
    for first in range(0, len(found.latents), FRAME_COLUMNS):
        part = slice(first, first + FRAME_COLUMNS)
        images = found.images[:, part, value]
        latents = zip(found.latents[part], found.kl[part], strict=True)
        blocks.append(
            pictures.framed(
                pictures.grid(
                    pictures.enlarged(images.reshape(-1, *images.shape[2:])),
                    columns=images.shape[1],
                ),
                columns=[f"z{d}\n{kl:.2f} nats" for d, kl in latents],
                title="" if blocks else f"Each latent at {found.values[value]} ({found.axis})",
            )
        )
    return pictures.stacked(blocks)
