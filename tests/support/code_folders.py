"""Folders of codes as `generate --codes=all` writes them, made without a run."""

import hashlib
import json

import jax
import numpy as np
from flax import nnx

from configs import vq_vae
from pipeline import datasets, models
from pipeline.nn import weights
from pipeline.runtime import run_config
from pipeline.training import example_file

K = 16
LABELS = 4
SMALL = {"model.hidden": (8,), "model.latent_dim": 4, "data.variance": 0.1}


def codes_of(num, *, seed=0, grid=(4, 4), depth=(), num_codes=K):
    """Returns labels, and codes that depend on the label, the row and the code before."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, LABELS, num).astype(np.int32)
    noise = draw.integers(0, 2, (num, *grid, *depth))
    rows = np.arange(grid[0]).reshape(1, -1, 1, *[1] * len(depth))
    codes = 3 * labels.reshape(-1, 1, 1, *[1] * len(depth)) + rows + noise.cumsum(axis=2)
    return labels, codes % num_codes


def write(
    folder, *, num=(192, 64), num_codes=K, grid=(4, 4), depth=(), distortion=False, **changes
):
    """Writes codes of both splits, and the decoder of an untrained VQ-VAE, into `folder`."""
    config, example = _run(num_codes, grid, depth, changes)
    arrays = _decoder(config, example)
    about = {"config": run_config.flatten(config), "step": 7, "run": "vq"}
    folder.mkdir(parents=True, exist_ok=True)
    about["example"] = example_file.plain(example)
    weights.write(folder / "decoder.safetensors", arrays, about)
    sha = hashlib.sha256((folder / "decoder.safetensors").read_bytes()).hexdigest()
    for split, size in zip(("train", "heldout"), num, strict=True):
        labels, codes = codes_of(size, seed=len(split), grid=grid, depth=depth, num_codes=num_codes)
        rows = {"codes": codes.astype(np.uint8 if num_codes <= 256 else np.int32), "label": labels}
        if distortion:
            rows["distortion"] = np.linspace(100, 200, size, dtype=np.float32)
        _write_split(folder, split, rows, {"num_codes": num_codes, "sha": sha})
    return folder


def model(*, num_codes=K, grid=(4, 4), depth=(), **changes):
    """Returns the untrained VQ-VAE of the folders that `write` makes with these arguments."""
    config, example = _run(num_codes, grid, depth, changes)
    graphdef, init = models.make(config, example)
    return nnx.merge(graphdef, *init())


def _run(num_codes, grid, depth, changes):
    config = vq_vae.get_config("smoke")
    changes = SMALL | {"model.quantizer.num_codes": num_codes} | changes
    if depth:
        changes["model.quantizer.name"] = "residual_vq"
        changes["model.quantizer.num_quantizers"] = depth[0]
    config.update_from_flattened_dict(changes)
    image = jax.ShapeDtypeStruct((4 * grid[0], 4 * grid[1], 1), np.uint8)
    return config, {"image": image, "label": datasets.label(LABELS)}


def _decoder(config, example):
    trees = zip(("params", "stats"), models.make(config, example)[1](), strict=True)
    kept = {
        kind: {name: tree[name] for name in ("decoder", "quantizer") if name in tree}
        for kind, tree in trees
    }
    return weights.named(jax.device_get(kept))


def _write_split(folder, split, rows, about):
    half = len(rows["codes"]) // 2  # two shards
    shards = []
    for number, part in enumerate((slice(0, half), slice(half, None))):
        files = {name: f"codes-{split}-{name}-{number:05d}-of-00002.npy" for name in rows}
        for name, array in rows.items():
            np.save(folder / files[name], array[part])
        stop = len(rows["codes"]) if number else half
        shards.append({"first": number * half, "stop": stop, "files": files})
    entries = {
        name: {"shape": array.shape[1:], "dtype": array.dtype.name} for name, array in rows.items()
    }
    entries["label"]["num_classes"] = (LABELS,)
    whole = {
        "split": split,
        "step": 7,
        "num_codes": about["num_codes"],
        "grid": rows["codes"].shape[1:3],
        "num_examples": len(rows["codes"]),
        "arrays": entries,
        "shards": shards,
        "decoder": {"file": "decoder.safetensors", "sha256": about["sha"]},
    }
    if "distortion" in rows:
        whole |= {"bin_width": 1 / 255, "num_dims": 256}
    (folder / f"codes-{split}.json").write_text(json.dumps(whole))
