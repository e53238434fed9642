"""A trained model as pure functions of its parameters, for `jit`, `grad` and `vmap`.

`params` is a tree {"params": …, "stats": …}: what gradients train, and what moving averages do. A
function is there if the model's class defines the method, whatever the model's name.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline import models
from pipeline.outputs import row_chunks, sampling_options
from pipeline.runtime import errors, registry
from pipeline.training import examples, optimizer, setup, step

Labels = Mapping[str, Array] | None


class Functions(NamedTuple):
    """The functions of a model; one that the model lacks is None.

    Each takes `params` first and `labels` last: None, or a mapping from the names in
    `config.model.conditions` to arrays [B, ...]. They check no values, as no traced function can.
    Images are uint8 of 0 … 255, float32 in [0, 1], or integers of the data set's own range.
    """

    # (params, images [B, H, W, C], labels=None) → mean and log-variance [B, D], or codes [B, h, w]
    encode: Callable[..., Any] | None
    # (params, z [B, D] or codes [B, h, w], labels=None) → [B, H, W, C] float32 in [0, 1]
    decode: Callable[..., Any] | None
    # (params, images [B, H, W, C], labels=None) → [B, H, W, C] float32 in [0, 1]
    reconstruct: Callable[..., Any] | None
    # (params, keys [B], labels=None) → [B, H, W, C] float32 in [0, 1]
    sample: Callable[..., Any] | None


def params_of(state: step.TrainState) -> dict[str, Any]:
    """Returns the tree that the functions take; averaged parameters if the run keeps them.

    The state is that of an evaluation, whole on every device.
    """
    params = optimizer.evaluation_params(state.params, state.opt_state)
    return {"params": params, "stats": state.stats}


def merging(config: Any, example: Any) -> Callable[[Any], Any]:
    """Returns the function `params` → the run's model with these values."""
    graphdef, _ = models.make(config, example)
    return lambda params: nnx.merge(graphdef, params["params"], params["stats"], copy=True)


def make(config: Any, example: Any) -> Functions:
    """Returns the functions of the model that a config describes.

    Args:
        config: of the run.
        example: abstract example of its data set.

    Raises:
        InputError: a value of the config cannot work.
    """
    merged = merging(config, example)
    model = registry.load("models", config.model.name, field="model.name").Model
    is_conditional = bool(config.model.get("conditions", ()))

    def given(labels: Labels) -> tuple:
        return () if labels is None else (labels,)

    def encode(params: Any, images: Array, labels: Labels = None) -> Any:
        return merged(params).encode(scaled(images, example), *given(labels))

    def decode(params: Any, z: Array, labels: Labels = None) -> Array:
        return merged(params).decode(z, *given(labels))

    def reconstruct(params: Any, images: Array, labels: Labels = None) -> Array:
        # A batch without labels cannot ask for the null class, which `encode` and `decode` can.
        if is_conditional and labels is None:
            mean, _ = encode(params, images)
            return decode(params, mean)
        batch = {"image": scaled(images, example), **(labels or {})}
        return merged(params).reconstruct(batch)

    def sample(params: Any, keys: Array, labels: Labels = None) -> Array:
        return merged(params).sample(keys, *given(labels))

    # A model of other data than images, such as codes, reconstructs no images.
    has_images = "image" in example
    return Functions(
        encode if has_images and hasattr(model, "encode") else None,
        decode if hasattr(model, "decode") else None,
        reconstruct if has_images and hasattr(model, "reconstruct") else None,
        sample if hasattr(model, "sample") else None,
    )


def check_has(functions: Functions, name: str, config: Any) -> None:
    """Raises an InputError if the run's model lacks the function `name`."""
    if getattr(functions, name) is None:
        known = ", ".join(one for one in Functions._fields if getattr(functions, one) is not None)
        raise errors.InputError(
            f"the run's model {config.model.name!r} has no {name}: it has {known}"
        )


def scaled(images: Array, example: Any) -> Array:
    """Returns images as the model takes them: bytes of 0 … 255, or float32 in [0, 1]."""
    images = jnp.asarray(images)
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images.astype(jnp.float32)
    own = images.dtype == example["image"].dtype
    return examples.scaled({"image": images}, example)["image"] if own else images


class Programs:
    """The functions of one model, compiled when they are first called; see `row_chunks`."""

    def __init__(self, ready: setup.Setup, params: Any):
        """Keeps what the functions need; `params` lie whole on the devices of `ready`."""
        self._ready, self._params = ready, params
        self._programs: dict[Any, row_chunks.Program] = {}

    def __call__(self, name: str, given: tuple[Any, Any], options: Mapping[str, Any]) -> Any:
        """Returns the results for (rows, labels), NumPy arrays [N, ...].

        Args:
            name: of the function.
            given: its arguments [N, ...]; keys as their data, [N, words] uint32.
            options: of sampling, see `sampling_options`.

        Raises:
            InputError: the options do not fit the model.
        """
        key = name, tuple(sorted(options.items()))
        if key not in self._programs:
            config = sampling_options.applied(self._ready.config, options)
            function = getattr(make(config, self._ready.example), name)

            devices = self._ready.mesh.local_devices

            def of_rows(params: Any, given: tuple[Any, Any]) -> Any:
                rows, labels = given
                return function(
                    params, jax.random.wrap_key_data(rows) if name == "sample" else rows, labels
                )

            self._programs[key] = row_chunks.Program(of_rows, self._params, devices)
        return self._programs[key](given)
