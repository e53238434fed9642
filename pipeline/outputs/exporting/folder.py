"""A trained model as a folder that needs neither this package nor the run.

`jax.export` makes each function a file of StableHLO, for any number of examples and for CPUs, GPUs
and TPUs. The arrays are an argument of the functions, so they lie in the folder only once, in
params.safetensors.
"""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax import export

import pipeline
from pipeline import datasets
from pipeline.nn import weights
from pipeline.outputs import trained
from pipeline.outputs.exporting import functions, model_card, usage_program
from pipeline.runtime import errors, run_config
from pipeline.runtime.storage import faults
from pipeline.training import example_file

PLATFORMS = ("cpu", "cuda", "tpu")
PARAMS, ABOUT = "params.safetensors", "config.json"
# What an earlier JAX cannot read, it says with an error. A later one reads it for at least 6
# months. Tried: files of 0.10.2 with 0.9.0, and of 0.11.2 with 0.11.0 and not with 0.10.2.
OLDEST_JAX = {"0.10": "0.9.0"}
PRIVATE = ("data.path", "compilation_cache")  # places on this computer


class Export(NamedTuple):
    """What becomes the folder."""

    about: dict[str, Any]  # the content of config.json
    programs: dict[str, bytes]  # by name of the function
    params: bytes


def check_out(out: Path) -> None:
    """Checks that a new folder can be made at `out`.

    Raises:
        InputError: something is there, except an empty folder.
        OSError: it cannot be written.
    """
    if out.is_symlink() or (out.is_dir() and any(out.iterdir())):
        raise errors.InputError(
            f"--out={out} exists: name a new folder, or remove this one if it is an old export"
        )
    faults.check_writable(out.parent)


def make(model: trained.TrainedModel, config: Any, chosen: Sequence[functions.Function]) -> Export:
    """Exports functions of a model.

    Args:
        model: at one checkpoint.
        config: of its run, as it is saved.
        chosen: the functions.
    """
    (num,) = export.symbolic_shape("n")
    programs, version = {}, 0
    for function in chosen:
        given = functions.abstract(model, function, num)
        exported = export.export(jax.jit(function.call), platforms=PLATFORMS)(*given)
        programs[function.name] = bytes(exported.serialize())
        version = exported.calling_convention_version
    arrays = functions.arrays(model, chosen)
    about = _about(model, config, chosen, version)
    return Export(about, programs, weights.encoded(arrays, {"step": model.step}))


def write(out: Path, made: Export, texts: model_card.Texts, onnx: Mapping[str, bytes]) -> None:
    """Writes the folder: all of it, or nothing.

    Args:
        out: as `check_out` allows it.
        made: from `make`.
        texts: that the model card needs besides.
        onnx: files of ONNX by name of the function.

    Raises:
        OSError: it cannot be written.
    """
    about = made.about | {"onnx": {name: f"{name}.onnx" for name in onnx}}
    contents: dict[str, str | bytes] = {
        **{f"{name}.stablehlo": content for name, content in made.programs.items()},
        **{f"{name}.onnx": content for name, content in onnx.items()},
        PARAMS: made.params,
        ABOUT: json.dumps(about, indent=2, ensure_ascii=False) + "\n",
        "README.md": model_card.text(about, texts),
        usage_program.NAME: usage_program.program(about),
    }
    with _new_folder(out) as folder:
        for name, content in contents.items():
            with open(folder / name, "xb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Makes a folder beside `out` that takes its name at the end of the block."""
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    with faults.writing(out):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            os.rename(temporary, out)  # in place of an empty folder too
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _about(
    model: trained.TrainedModel,
    config: Any,
    chosen: Sequence[functions.Function],
    version: int,
) -> dict[str, Any]:
    """Returns the content of config.json."""
    dtype = functions.settled(config).compute_dtype
    flat = run_config.flatten(config) | {"compute_dtype": dtype}
    minor = ".".join(jax.__version__.split(".")[:2])
    return {
        "model": model.config.model.name,
        "step": model.step,
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(model.params["params"])),
        "functions": {one.name: _signature(one) for one in chosen},
        "params": PARAMS,
        "data": _data(model),
        "example": _public(example_file.plain(model.example)),
        "platforms": list(PLATFORMS),
        "calling_convention_version": version,
        "oldest_jax": OLDEST_JAX.get(minor, f"{minor}.0"),
        "versions": {"vae-pipeline": pipeline.__version__, "jax": jax.__version__}
        | {name: metadata.version(name) for name in ("jaxlib", "flax")},
        "config": {name: value for name, value in flat.items() if name not in PRIVATE},
    }


def _data(model: trained.TrainedModel) -> dict[str, Any]:
    """Returns what the data set is, and which of its values became 0 and 1."""
    found: dict[str, Any] = {"name": model.config.data.name}
    if isinstance(codes := model.example.get("codes"), datasets.Codes):
        found["name"] = f"codes of {codes.config['data.name']}"
    if "image" in model.example:
        pixels = model.pixels
        found |= {"dtype": pixels.dtype.name, "low": pixels.low, "high": pixels.high}
    return found | {"classes": datasets.class_names(model.example)}


def _public(example: dict[str, Any]) -> dict[str, Any]:
    """Returns an example as JSON without places on this computer, which codes keep too."""
    entries = json.loads(json.dumps(example))
    for entry in entries.values():
        if "decoder" in entry:
            decoder = json.loads(entry["decoder"])
            for name in PRIVATE:
                decoder["config"].pop(name, None)
            entry["decoder"] = json.dumps(decoder)
    return entries


def _signature(function: functions.Function) -> dict[str, Any]:
    def plain(entries: tuple[functions.Entry, ...]) -> list[dict[str, Any]]:
        return [
            {"name": one.name, "shape": ["n", *one.shape], "dtype": one.dtype, "text": one.text}
            for one in entries
        ]

    return {
        "file": f"{function.name}.stablehlo",
        "inputs": plain(function.inputs),
        "outputs": plain(function.outputs),
    }
