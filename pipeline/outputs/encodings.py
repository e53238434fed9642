"""The encodings that `generate` writes: codes, codes under their old name, and latents.

Codes come with the decoder that they belong to, so that a prior over them needs no other run. If
the likelihood is in nats they also come with each example's distortion, which a prior needs for
bits per dimension.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import lax

from pipeline import datasets, models
from pipeline.display import terminal
from pipeline.nn import networks
from pipeline.outputs import encoded_splits, frozen_decoder, model_functions
from pipeline.runtime import errors
from pipeline.training import fingerprint, setup

SPLITS = ("train", "heldout")
KINDS = {"codes": (*SPLITS, "all"), "latents": (*SPLITS, "all"), "tokens": SPLITS}


def check_split(kind: str, splits: str) -> None:
    """Raises an InputError if `splits` names no split, as the flag --<kind> takes it."""
    if splits not in KINDS[kind]:
        *first, last = KINDS[kind]
        raise errors.InputError(
            f"--{kind}={splits} is no split: choose {', '.join(first)} or {last}"
        )


def check_model(kind: str, config: Any, example: Any) -> None:
    """Raises an InputError if the run's model has no encodings of this kind."""
    model, shown = models.abstract(config, example), f"the run's model {config.model.name!r}"
    if kind == "latents" and not hasattr(model, "posterior"):
        raise errors.InputError(
            f"--latents: {shown} has no Gaussian posterior: use the --workdir of a run that has "
            "one, such as of beta_vae, or --codes"
        )
    if kind != "latents" and not (hasattr(model, "quantizer") and hasattr(model, "encode")):
        raise errors.InputError(
            f"--{kind}: {shown} has no codes: use the --workdir of a run of vq_vae"
        )


def descriptions(kind: str, splits: str) -> tuple[str, ...]:
    """Returns the names of the files that describe the encodings of one or both splits."""
    return tuple(f"{kind}-{split}.json" for split in _each(splits))


def write(
    ready: setup.Setup, state: Any, kind: str, splits: str, *, workdir: Path, out: Path
) -> None:
    """Writes the encodings of one or both splits.

    Args:
        ready: of the run, on all devices of all processes; its data need not be open.
        state: as restored on these devices.
        kind: a key of `KINDS`.
        splits: "train", "heldout" or "all".
        workdir: of the run.
        out: the folder for the files; all processes share it.

    Raises:
        InputError: more processes than examples, or a folder that is not shared.
        OSError: the files cannot be written.
    """
    config, example, step = ready.given, ready.example, int(state.step)
    params = model_functions.params_of(state)
    ready = ready._replace(splits=datasets.load(config))
    for text in fingerprint.changes(ready.opened, workdir):
        terminal.Terminal(active=jax.process_index() == 0).warn(text)
    about: dict[str, Any] = {
        "step": step,
        "data": {"name": config.data.name, "image_shape": example["image"].shape},
        "seed": config.seed,
    }
    made = _latents(ready, params) if kind == "latents" else _codes(ready, params, kind)
    if kind == "codes":
        about["decoder"] = frozen_decoder.write(out, params, example, step=step, workdir=workdir)
    for split in _each(splits):
        encoded_splits.write(ready, params, made, split=split, about=about, folder=out)


def _each(splits: str) -> tuple[str, ...]:
    return SPLITS if splits == "all" else (splits,)


def smallest(num_codes: int) -> type[np.integer]:
    """Returns the smallest of uint8, uint16 and int32 that holds num_codes − 1."""
    return np.uint8 if num_codes <= 2**8 else np.uint16 if num_codes <= 2**16 else np.int32


def _codes(ready: setup.Setup, params: Any, name: str) -> encoded_splits.Kind:
    """Returns the codes; those of the old name `tokens` have no distortion."""
    config, example = ready.config, ready.example
    model = models.abstract(config, example)
    likelihood = getattr(model, "likelihood", None) if name == "codes" else None
    merged = model_functions.merging(config, example)

    def encode(params: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        model, image = merged(params), model_functions.scaled(batch["image"], example)
        codes = model.encode(image)
        if likelihood is None:
            return {name: codes}
        # The barrier keeps the decoder from changing how the encoder is compiled, and its bits.
        codes = lax.optimization_barrier(codes)
        image = networks.unit_interval(image)
        outputs = model.outputs(model.vectors(codes))
        return {name: codes, "distortion": model.reconstruction(outputs, image)}

    num_codes = model.quantizer.num_codes
    dtype = smallest(num_codes)
    rows = _rows(encode, params, ready)
    rows[name] = jax.ShapeDtypeStruct(rows[name].shape, dtype)
    about = {
        "num_codes": num_codes,
        "grid": model.grid,
        "dtype": np.dtype(dtype).name,
        "quantizer": config.model.quantizer.to_dict(),
    }
    if likelihood is not None:
        num_dims = math.prod(example["image"].shape)
        about |= {"bin_width": likelihood.bin_width, "num_dims": num_dims}
    return encoded_splits.Kind(name, name, rows, encode, about)


def _latents(ready: setup.Setup, params: Any) -> encoded_splits.Kind:
    example = ready.example
    merged = model_functions.merging(ready.config, example)

    def encode(params: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        image = model_functions.scaled(batch["image"], example)
        mean, log_variance = merged(params).posterior({**batch, "image": image})
        return {"mean": mean, "log_variance": log_variance}

    rows = _rows(encode, params, ready)
    (latent_dim,) = rows["mean"].shape
    model = models.abstract(ready.config, example)
    shape = getattr(model, "latent_shape", (latent_dim,))  # (h, w, D) of a grid
    about = {"latent_dim": latent_dim, "latent_shape": shape}
    return encoded_splits.Kind("latents", "", rows, encode, about)


def _rows(encode: Any, params: Any, ready: setup.Setup) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shape and dtype of an example's encodings; computes nothing."""
    names = ("image", *ready.config.model.get("conditions", ()))
    entries = {name: ready.example[name] for name in names}
    batch = {n: jax.ShapeDtypeStruct((1, *e.shape), e.dtype) for n, e in entries.items()}
    found = jax.eval_shape(encode, params, batch)
    return {name: jax.ShapeDtypeStruct(one.shape[1:], one.dtype) for name, one in found.items()}
