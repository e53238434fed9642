"""How good images are: reconstructions beside their originals, and samples beside held-out images.

The whole held-out set counts, unless `config.image_quality.num_examples` says otherwise. The
devices compute a value for each image, and the host adds them up in float64. A device always gets
the same number of images, so no figure depends on the mesh or on the batch size. Images are rounded
to the values that the data can hold, as a file of images would have them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from pipeline import datasets, evals
from pipeline.display import texts
from pipeline.evals import samples
from pipeline.evals.quality import frechet, measures
from pipeline.mesh import compiling, sharding
from pipeline.nn import perceptual, streams
from pipeline.runtime import errors
from pipeline.training import batching, evaluation, step

SLOW = "minutes"
Rows = dict[str, np.ndarray]  # by figure: [n] values of images, or their features [n, F]


def make(config: Any, mesh: Mesh, source: datasets.Source) -> Callable[..., Iterator]:
    """Returns the evaluation: state → (tag, value) pairs, and a text about what is left out.

    Raises:
        InputError: no images, a model without reconstructions, an unknown network, or a file of
            weights that cannot be read.
    """
    example, section = datasets.example_spec(config), config.image_quality
    if "image" not in example:
        raise errors.InputError(
            f"config.evals has 'image_quality', but config.data.name={config.data.name!r} has no "
            "images to compare: take it out"
        )
    evals.check_model(config, "reconstruct", what="reconstructions", evaluation="image_quality")
    chosen = measures.choose(section, example["image"].shape)
    left_out, drawn = dict(chosen.left_out), dict(chosen.features)
    num = min(section.num_examples or len(source), len(source))
    if unfit := samples.title(config) or ("" if num > 1 else "it needs two images or more"):
        left_out |= {f"{name} of samples": unfit for name in drawn}
        drawn = {}
    config = config.copy_and_resolve_references()
    config.eval_batch_size = section.rows * mesh.size
    compare = _comparing(config, mesh, chosen)
    sample = _sampling(config, mesh, chosen, num) if drawn else None

    def evaluate(state: step.TrainState) -> Iterator[tuple[str, Any]]:
        # They stay on the devices only while they are in use.
        weights = {name: read() for name, read in chosen.weights.items()}
        weights = sharding.everywhere(weights, mesh)
        values: dict[str, list[np.ndarray]] = {name: [] for name in chosen.pairs}
        sets = {name: frechet.Stream() for name in _sets(chosen.features)}
        batches = batching.heldout_batches(source, config, mesh, num=num)
        for rows in compare(state, weights, batches):
            for name, value in rows.items():
                (sets[name].add if name in sets else values[name].append)(value)
        for name, parts in values.items():
            yield f"heldout/{name}", float(np.concatenate(parts).mean(dtype=np.float64))
        if sample is not None:
            for rows in sample(state, weights):
                for name in rows:
                    sets[name].add(rows[name])
        yield from _distances(sets, num)
        if left_out:
            yield "heldout/image_quality_left_out", _table(left_out)

    return evaluate


def warnings(figures: dict[str, float]) -> list[str]:
    """Returns what a user would miss among the figures without a word: what is not installed."""
    if "psnr" not in figures or perceptual.is_installed():
        return []
    return [
        "the weights of LPIPS and of the Fréchet distance by AlexNet are not installed, so the "
        f"image quality lacks both: {perceptual.INSTALL}"
    ]


def keys(seed: int, first: Any, num: int) -> Array:
    """Returns the keys [num] of the samples from number `first` on; each is a function of seed."""
    key = jax.random.fold_in(jax.random.key(seed), streams.QUALITY)
    numbers = jnp.asarray(first, jnp.uint32) + jnp.arange(num, dtype=jnp.uint32)
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)


def _comparing(config: Any, mesh: Mesh, chosen: measures.Chosen) -> Callable[..., Iterator[Rows]]:
    """Returns (state, weights, batches) → the true examples' values and features, by batch."""
    example, axes = datasets.example_spec(config), P(mesh.axis_names)
    pixels = datasets.pixels_of(example["image"])
    reconstruct = evaluation.make_method(config, example, "reconstruct")

    def of_rows(weights: dict[str, Any], images: Array, found: Array) -> dict[str, Array]:
        images, found = pixels.unit(images), rounded(found, pixels)
        rows = {
            name: measure(weights[name], images, found) for name, measure in chosen.pairs.items()
        }
        for name, features in chosen.features.items():
            rows[f"{name} heldout"] = features(weights[name], images)
            rows[f"{name} reconstructions"] = features(weights[name], found)
        return rows

    measured = compiling.jit(
        jax.shard_map(
            of_rows, mesh=mesh, in_specs=(P(), axes, axes), out_specs=axes, check_vma=False
        ),
        mesh,
    )

    def compared(state: step.TrainState, weights: dict[str, Any], batches: Any) -> Iterator[Rows]:
        for _, batch in batches:
            rows = measured(weights, batch["image"], reconstruct(state, batch))
            rows = multihost_utils.process_allgather(rows | {"mask": batch["mask"]}, tiled=True)
            true = rows.pop("mask") > 0
            yield {name: np.asarray(value)[true] for name, value in rows.items()}

    return compared


def _sampling(
    config: Any, mesh: Mesh, chosen: measures.Chosen, num: int
) -> Callable[..., Iterator[Rows]]:
    """Returns (state, weights) → the features of `num` samples of the model, by batch."""
    example, axes = datasets.example_spec(config), P(mesh.axis_names)
    pixels = datasets.pixels_of(example["image"])
    sample = evaluation.make_method(config, example, "sample")
    at_once = config.eval_batch_size
    keys_from = jax.jit(
        lambda first: keys(config.seed, first, at_once),
        out_shardings=sharding.batch_sharded(mesh),
    )

    def of_rows(weights: dict[str, Any], images: Array) -> dict[str, Array]:
        images = rounded(images, pixels)
        return {
            f"{name} samples": features(weights[name], images)
            for name, features in chosen.features.items()
        }

    measured = compiling.jit(
        jax.shard_map(of_rows, mesh=mesh, in_specs=(P(), axes), out_specs=axes, check_vma=False),
        mesh,
    )

    def sampled(state: step.TrainState, weights: dict[str, Any]) -> Iterator[Rows]:
        weights = {name: weights[name] for name in chosen.features}
        for first in range(0, num, at_once):
            rows = measured(weights, sample(state, keys_from(np.uint32(first))))
            rows = multihost_utils.process_allgather(rows, tiled=True)
            yield {name: np.asarray(value)[: num - first] for name, value in rows.items()}

    return sampled


def rounded(images: Array, pixels: datasets.Pixels) -> Array:
    """Returns images in [0, 1] with the values that the data can hold; floats stay as they are."""
    images = jnp.clip(images.astype(jnp.float32), 0.0, 1.0)
    if pixels.resolution is None:
        return images
    steps = np.float32(float(pixels.high) - float(pixels.low))
    return jnp.round(images * steps) / steps


def _sets(features: dict[str, Any]) -> list[str]:
    return [f"{name} {of}" for name in features for of in ("heldout", "reconstructions", "samples")]


def _distances(sets: dict[str, frechet.Stream], num: int) -> Iterator[tuple[str, float]]:
    """Yields the Fréchet distances to the held-out images; the number of images is in the name."""
    for name, of_reconstructions in measures.FRECHET.items():
        for figure, of in ((of_reconstructions, "reconstructions"), (name, "samples")):
            if (other := sets.get(f"{name} {of}")) and other.moments.num > 1:
                reference = sets[f"{name} heldout"].moments
                yield f"heldout/{figure}_{num}", frechet.distance(reference, other.moments)


def _table(left_out: dict[str, str]) -> str:
    rows = [f"| {name} | {texts.cell(reason)} |" for name, reason in left_out.items()]
    return "\n".join(["| left out | why |\n|---|---|", *rows])
