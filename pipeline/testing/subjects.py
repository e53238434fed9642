"""The model under test: its config, small enough for a test, and a batch of examples."""

import copy
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from ml_collections import ConfigDict

from pipeline import datasets, models
from pipeline.mesh import sharding
from pipeline.runtime import errors, registry
from pipeline.training import step

NUM = 16  # examples of a batch; 4 devices times 2 parts must divide it
FLAGS = "XLA_FLAGS=--xla_force_host_platform_device_count={}"


class Subject(NamedTuple):
    """A model, with what its checks need."""

    config: ConfigDict
    example: Any  # abstract example
    batch: dict[str, np.ndarray]  # 16 examples, without mask and position
    other: dict[str, np.ndarray]  # 16 different ones
    devices: tuple[Any, ...]
    steps: int
    merge: Callable[[Any, Any], Any]  # (params, stats) → the model
    first: step.TrainState  # of step 0, on the host

    @property
    def model(self) -> Any:
        """The model of step 0; its methods may change it, so every reader gets a new one."""
        # As arrays of JAX: a method that changes one fails later, with a line of its own.
        return self.merge(*jax.tree.map(jnp.asarray, (self.first.params, self.first.stats)))

    @property
    def has(self) -> Callable[[str], bool]:
        """Says whether the model defines a method."""
        module = registry.load("models", self.config.model.name, field="model.name")
        return lambda name: hasattr(module.Model, name)


def make(model: Any, *, devices: int, batch: Mapping[str, Any] | None, steps: int) -> Subject:
    """Returns the subject of `check_model`, whose arguments these are."""
    if devices not in (1, 2, 4):
        raise errors.InputError(f"devices={devices} must be 1, 2 or 4")
    if steps < 2:
        raise errors.InputError(f"steps={steps} must be at least 2: one before resuming, one after")
    cpus = _cpus()
    if len(cpus) < devices:
        raise errors.InputError(
            f"devices={devices}, and JAX has {len(cpus)} CPU devices: set "
            f"{FLAGS.format(devices)} before JAX starts, or devices={len(cpus)} to check less"
        )
    config = _small(_config(model), steps)
    models.couples(config)  # refuses one of the two methods without the other
    example = datasets.example_spec(config)
    try:
        graphdef, _ = models.make(config, example)
    except AttributeError as error:
        if isinstance(model, ConfigDict):
            raise
        raise errors.InputError(
            f"config.model.name={config.model.name!r} needs more fields than the smoke preset has "
            f"({str(error).splitlines()[0]}): give check_model a config"
        ) from error
    draw = np.random.default_rng(0)
    first = drawn(example, draw) if batch is None else _given(batch, example)
    # Examples that differ in every row from those of a given batch, and are as valid.
    rolled = {name: np.roll(array, 1, axis=0) for name, array in first.items()}
    other = drawn(example, draw) if batch is None else rolled
    merge = lambda params, stats: nnx.merge(graphdef, params, stats, copy=True)  # noqa: E731
    # One program makes the first state of all runs.
    mesh = sharding.make_mesh({"data": -1}, devices=cpus[:1])
    state = jax.device_get(step.create_state(config, example, mesh))
    return Subject(config, example, first, other, tuple(cpus[:devices]), steps, merge, state)


def drawn(example: Mapping[str, Any], draw: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns 16 random examples that fit an abstract one."""
    return {name: _entry(name, entry, draw) for name, entry in example.items()}


def keys_of(subject: Subject, seed: int = 0) -> Array:
    """Returns 16 keys."""
    return jax.random.split(jax.random.key(subject.config.seed + seed), NUM)


def as_given(batch: Mapping[str, Any], *, mask: Any = None) -> dict[str, Any]:
    """Returns a batch as a model gets it on one device, but for the range of its pixels."""
    rows = len(next(iter(batch.values())))
    mask = np.ones(rows) if mask is None else mask
    return {**batch, "mask": jnp.float32(mask), "position": jnp.arange(rows, dtype=jnp.int32)}


def _cpus() -> list[Any]:
    try:
        return jax.devices("cpu")
    except RuntimeError as error:
        text = f"check_model needs CPU devices: set JAX_PLATFORMS=cpu ({error})"
        raise errors.InputError(text) from error


def _config(model: Any) -> ConfigDict:
    if isinstance(model, ConfigDict):
        return model
    name = model.__name__ if isinstance(model, ModuleType) else str(model)
    name = name.removeprefix("pipeline.models.")
    known = name in registry.names("models")
    config = registry.config(name if known else "default").get_config(*["smoke"] * known)
    if not known:
        registry.config("default").apply(config, "smoke")
    config.model.name = name
    registry.load("models", name, field="model.name")
    return config


def _small(given: ConfigDict, steps: int) -> ConfigDict:
    """Returns a copy that trains a few steps, whatever the config says of the run."""
    config = copy.deepcopy(given.copy_and_resolve_references()).unlock()
    config.batch_size, config.total_steps = NUM, max(steps, config.total_steps)
    config.eval_batch_size, config.accumulation_steps, config.deterministic_shards = 0, 1, 0
    config.compute_dtype = "float32"  # tolerances are its
    config.mesh.data, config.mesh.fsdp = -1, 1
    config.data.variance = config.data.variance or 1.0  # no data are open that it could be of
    if not config.model.get("num_examples", 1):
        config.model.num_examples = 1024
    return models.settled(config)


def _given(batch: Mapping[str, Any], example: Mapping[str, Any]) -> dict[str, np.ndarray]:
    found = {name: np.asarray(batch[name]) for name in batch if name in example}
    for name, entry in example.items():
        shape = (NUM, *entry.shape)
        if name not in found or found[name].shape != shape or found[name].dtype != entry.dtype:
            has = f"{found[name].dtype}{list(found[name].shape)}" if name in found else "nothing"
            raise errors.InputError(
                f"batch[{name!r}] has {has}, and the data set's spec says "
                f"{np.dtype(entry.dtype)}{list(shape)}"
            )
    return found


def _entry(name: str, entry: Any, draw: np.random.Generator) -> np.ndarray:
    shape, dtype = (NUM, *entry.shape), np.dtype(entry.dtype)
    if name == "image":
        pixels = datasets.pixels_of(entry)
        low, high = map(float, pixels.ends)
        if dtype.kind == "u":
            return draw.integers(int(low), int(high), shape, dtype=dtype, endpoint=True)
        return draw.uniform(low, high, shape).astype(dtype)
    if isinstance(entry, datasets.Classes):
        sizes = entry.num_classes if entry.shape else entry.num_classes[0]
        return draw.integers(0, sizes, shape).astype(dtype)
    if isinstance(entry, datasets.Codes):
        return draw.integers(0, entry.num_codes, shape).astype(dtype)
    return draw.normal(size=shape).astype(dtype) if dtype.kind == "f" else np.zeros(shape, dtype)
