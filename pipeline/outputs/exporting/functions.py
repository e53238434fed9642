"""The functions of a trained model as an export has them: of a flat table of arrays, and of arrays.

Images are float32 in [0, 1] on both sides, so that what `decode` returns is what `encode` takes.
Every condition is an argument of its own. A class of −1, or an attribute that is NaN, means the
null class for that example, so one program serves examples with and without labels.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pipeline import datasets, models
from pipeline.mesh import dependence
from pipeline.nn import embeddings, weights
from pipeline.nn.quantizers import vectors
from pipeline.outputs import model_functions, trained
from pipeline.runtime import run_config

# Examples for which the distances to a chunk of codes fit into the memory that `vectors` allows.
NUM_EXAMPLES = 256


class Entry(NamedTuple):
    """An argument or result: an array [n, *shape] for n examples."""

    name: str
    shape: tuple[int, ...]  # of one example
    dtype: str
    text: str  # what its values are


class Function(NamedTuple):
    """A function (arrays of the model by name, *inputs) → outputs."""

    name: str
    call: Callable[..., Any]
    arrays: tuple[str, ...]  # names of the model's arrays that it takes, the same for all functions
    inputs: tuple[Entry, ...]
    outputs: tuple[Entry, ...]


def arrays(model: trained.TrainedModel, chosen: Sequence[Function]) -> dict[str, np.ndarray]:
    """Returns the parameters and statistics that the functions take, by name."""
    found = weights.named(model.params)
    names = {name for function in chosen for name in function.arrays}
    return {name: np.asarray(leaf) for name, leaf in found.items() if name in names}


def of(model: trained.TrainedModel, *, training: bool = False) -> tuple[Function, ...]:
    """Returns those of encode, decode, reconstruct and sample that the model has.

    They take the arrays that one of them reads. With `training`, they take also those that only
    training reads, such as a discriminator's.
    """
    config = settled(model.config)
    described = models.abstract(config, model.example)
    config = _for_any_size(config, described)
    functions = model_functions.make(config, model.example)._asdict()
    every = weights.named(model.params)
    structure = jax.tree.structure(model.params)
    conditions = tuple(
        _condition(name, model.example[name], has_null=_has_null(model))
        for name in config.model.get("conditions", ())
    )
    first = _first_inputs(model, described)

    def made(name: str) -> Function:
        function, entry = functions[name], first[name]

        def call(params: Mapping[str, Array], rows: Array, *labels: Array) -> Any:
            # What no function reads has no place in the folder, and here any value will do.
            leaves = [params[n] if n in params else jnp.zeros_like(every[n]) for n in every]
            tree = jax.tree.unflatten(structure, leaves)
            if name == "sample":
                rows = jax.random.wrap_key_data(rows)
            if entry.name == "images" and config.data.binarize:
                rows = jnp.where(rows >= 0.5, 1.0, 0.0)  # as the run's data were
            return function(tree, rows, _labels(conditions, labels) if conditions else None)

        call.__name__ = name  # names the program
        inputs = (entry, *conditions)
        whole = Function(name, call, tuple(every), inputs, ())
        leaves = jax.tree.leaves(jax.eval_shape(call, *abstract(model, whole, 1)))
        return whole._replace(outputs=_outputs(name, leaves, first))

    known = [name for name, function in functions.items() if function is not None]
    all_functions = tuple(made(name) for name in known if name in first)
    if training:
        return all_functions
    found = _read(model, all_functions)
    read = tuple(name for name in every if name in found)
    return tuple(function._replace(arrays=read) for function in all_functions)


def abstract(model: trained.TrainedModel, function: Function, num: Any) -> tuple[Any, ...]:
    """Returns the abstract arguments of a function for `num` examples, a number or a symbol."""
    found = weights.named(model.params)
    params = {
        name: jax.ShapeDtypeStruct(found[name].shape, found[name].dtype) for name in function.arrays
    }
    rows = [jax.ShapeDtypeStruct((num, *one.shape), np.dtype(one.dtype)) for one in function.inputs]
    return params, *rows


def _read(model: trained.TrainedModel, chosen: Sequence[Function]) -> set[str]:
    """Returns the names of the arrays that one of these functions reads."""
    found = set()
    for function in chosen:
        params, *rows = abstract(model, function, 1)
        flags = dependence.inputs_read(function.call, params, *rows)
        # A dictionary's leaves come in the order of its sorted keys.
        found |= {name for name, is_read in zip(sorted(params), flags, strict=False) if is_read}
    return found


def settled(config: Any) -> Any:
    """Returns the config of every platform's program: float32, unless it names another dtype."""
    return run_config.settled(config, "cpu")


def _for_any_size(config: Any, described: Any) -> Any:
    """Returns the config with a fixed chunk of codes: its choice by size needs a known size."""
    if not hasattr(described, "quantizer") or config.model.quantizer.get("chunk", 1):
        return config
    num_codes, num_sites = described.quantizer.num_codes, math.prod(described.grid)
    config = config.copy_and_resolve_references().unlock()
    config.model.quantizer.chunk = vectors.chunk_on_gpus(num_codes, NUM_EXAMPLES * num_sites)
    return config.lock()


def _first_inputs(model: trained.TrainedModel, described: Any) -> dict[str, Entry]:
    """Returns what each function takes after the parameters."""
    data = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    keys = Entry("keys", data.shape, data.dtype.name, "data of one key of jax.random an example")
    found = {"sample": keys}
    if "image" in model.example:
        text = "with pixels in [0, 1]"
        if model.config.data.binarize:
            text += "; the function rounds them to 0 and 1, as training did"
        images = Entry("images", model.image_shape, "float32", text)
        found |= {"encode": images, "reconstruct": images}
    if hasattr(described, "quantizer"):
        shape = (*described.grid, *described.quantizer.shape)
        found["decode"] = _codes(shape, described.quantizer.num_codes)
    elif isinstance(model.example.get("codes"), datasets.Codes):  # a prior, which decodes them
        found["decode"] = _codes(model.example["codes"].shape, model.example["codes"].num_codes)
    elif hasattr(described, "latent_dim"):
        text = "latents, in standard deviations of the prior N(0, 1)"
        if len(shape := getattr(described, "latent_shape", ())) > 1:
            text += f"; a grid {list(shape)}, place after place"
        found["decode"] = Entry("z", (described.latent_dim,), "float32", text)
    return found


def _codes(shape: tuple[int, ...], num_codes: int) -> Entry:
    return Entry("codes", shape, "int32", f"numbers of codes, 0 to {num_codes - 1}")


def _outputs(name: str, leaves: list[Any], first: Mapping[str, Entry]) -> tuple[Entry, ...]:
    if name != "encode":
        names = {"decode": "images", "reconstruct": "reconstructions", "sample": "samples"}
        texts = [(names[name], "images, with pixels in [0, 1]")]
    elif len(leaves) == 2:
        texts = [("mean", "of q(z|x)"), ("log_variance", "of q(z|x), natural logarithm")]
    else:
        texts = [(first["decode"].name, first["decode"].text)]
    return tuple(
        Entry(one, leaf.shape[1:], leaf.dtype.name, text)
        for (one, text), leaf in zip(texts, leaves, strict=True)
    )


def _has_null(model: trained.TrainedModel) -> bool:
    return bool(model.config.model.get("label_dropout", 0))


def _condition(name: str, entry: Any, *, has_null: bool) -> Entry:
    if isinstance(entry, datasets.Classes):
        sizes = ", ".join(f"0 to {size - 1}" for size in entry.num_classes)
        columns = f" of {', '.join(entry.names)}" if entry.names else ""
        null = "; −1 is the null class" if has_null else ""
        return Entry(name, tuple(entry.shape), "int32", f"classes{columns}: {sizes}{null}")
    null = "; NaN is the null class" if has_null else ""
    return Entry(name, tuple(entry.shape), "float32", f"attributes{null}")


def _labels(conditions: tuple[Entry, ...], given: tuple[Array, ...]) -> dict[str, Array]:
    """Returns entries of a batch; the examples without labels are marked as dropped."""
    entries, dropped = {}, jnp.zeros(given[0].shape[0], bool)
    for condition, values in zip(conditions, given, strict=True):
        missing = values < 0 if condition.dtype == "int32" else jnp.isnan(values)
        dropped |= missing.reshape(values.shape[0], -1).any(axis=-1)
        entries[condition.name] = jnp.where(missing, 0, values)
    return entries | {embeddings.DROPPED: dropped}
