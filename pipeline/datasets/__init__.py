"""Data sets: one file each; `config.data.name` names the file. This module holds its contract.

Each file defines two functions of `section`, which is `config.data`. `spec(section)` returns one
abstract example; its `image` is a `Pixels`, or a `jax.ShapeDtypeStruct` of uint8 for 0 … 255.
Examples without an image have `codes`, a `Codes` that says which images they become.
`load(section)` returns a dictionary of sources: `train` and `heldout` if splits are published,
otherwise `all`. A name with a dot, such as `my_package.my_data`, is a module from outside.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from pipeline.datasets import _classes, _codes, _joined, _pixels
from pipeline.runtime import errors, registry, run_config

# The abstract entries of an example that say more than a `jax.ShapeDtypeStruct`.
Pixels = _pixels.Pixels
pixels_of = _pixels.of
Classes = _classes.Classes
Codes = _codes.Codes
label = _classes.label
factors = _classes.factors
class_names = _classes.class_names
SAMPLE = 64  # examples whose content stands for all, if a source says nothing better


class Source(Protocol):
    """Random access to the examples of a data set, one batch per call, from several threads."""

    def __len__(self) -> int:
        """Returns the number of examples."""

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns arrays [n, ...] for the int64 indices [n], as the `spec` says."""

    # A source may also have a method `fingerprint() -> dict[str, str]`: short texts that stand for
    # its content, such as {"examples": "1200", "pixels": "<12 hexadecimal digits>"}. They depend on
    # names, order, classes, sizes and pixels, and never on paths or times.


class Splits(NamedTuple):
    """The disjoint splits of a data set."""

    train: Source
    heldout: Source


class Subset(NamedTuple):
    """The examples `indices` of `source`, in that order."""

    source: Source
    indices: np.ndarray

    def __len__(self) -> int:
        """Returns the number of chosen examples."""
        return self.indices.size

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the source's arrays for the chosen examples at `indices`."""
        return self.source.read(self.indices[indices])

    def fingerprint(self) -> dict[str, str]:
        """Returns the source's fingerprint, and a digest of which examples are chosen."""
        found = fingerprint(self.source)
        chosen = self.indices.astype("<i8").tobytes() + found.get("split", "").encode()
        return found | {"examples": str(len(self)), "split": digest(chosen)}


def fingerprint(source: Source) -> dict[str, str]:
    """Returns short texts that stand for the content of a source.

    If the source has no method of that name, they are the number of examples and a digest of up to
    64, which are spaced evenly from the first to the last.
    """
    if isinstance(source, _pixels.Checked):
        return fingerprint(source.source) | {"range of pixels": source.pixels.text()}
    own: Callable[[], dict[str, str]] | None = getattr(source, "fingerprint", None)
    if own is not None:
        return own()
    num = len(source)
    chosen = np.linspace(0, num - 1, min(num, SAMPLE)).round().astype(np.int64)
    content = b""
    for name, values in sorted(source.read(chosen).items()):
        array = np.ascontiguousarray(values)
        content += f"{name} {array.dtype.str} {array.shape} ".encode() + array.tobytes()
    return {"examples": str(num), "content": digest(content)}


def digest(content: bytes) -> str:
    """Returns 12 hexadecimal digits that stand for bytes."""
    return hashlib.blake2b(content, digest_size=6).hexdigest()


def example_spec(config: Any) -> dict[str, Any]:
    """Returns one abstract example of the data set that the config names; reads no image.

    Every entry has a shape and a dtype. Class indices are a `Classes`; `pixels_of(image)` is the
    range of the pixels.

    Raises:
        InputError: the data set has images that no model can train on.
    """
    found = _module(config).spec(config.data)
    if "image" in found:
        _pixels.check(found["image"], config.data.name, binarize=config.data.binarize)
    elif config.data.binarize:
        raise errors.InputError(
            f"config.data.binarize=True rounds pixels, and config.data.name={config.data.name!r} "
            "has none: set it to False"
        )
    return found


def shown_pixels(example: Mapping[str, Any]) -> Pixels:
    """Returns the pixels of a data set's images, or of those that its codes become."""
    return pixels_of(example["image"]) if "image" in example else example["codes"].image


def images_of(config: Any, example: Mapping[str, Any]) -> Pixels:
    """Returns the pixels of a data set's images.

    Raises:
        InputError: the examples have no images, so the config's model cannot train on them.
    """
    if "image" not in example:
        raise errors.InputError(
            f"config.data.name={config.data.name!r} has no images, on which config.model.name="
            f"{config.model.name!r} trains: choose another data.name, or model.name='code_prior'"
        )
    return pixels_of(example["image"])


def since_older_versions(config: Any) -> str:
    """Returns why runs of older versions read other examples or labels here, or ""."""
    told = getattr(_module(config), "since_older_versions", None)
    return told(config.data) if told is not None else ""


def load(config: Any) -> Splits:
    """Opens the data set and splits it.

    If no splits are published, `data.seed` draws an order and `data.heldout_examples` to hold
    out; 0 means a tenth of them, at most 10,000. The training split is the first
    `data.train_examples` of the rest. If splits are published, their order stays.

    Raises:
        InputError: the files are missing or damaged, or too few examples remain for training.
    """
    name, parts = config.data.name, _parts(config)
    if "all" in parts:
        source = parts["all"]
        held = config.data.heldout_examples or heldout_share(len(source))
        if len(source) < 2:
            text = "examples: it takes 2 or more, to train on and to hold out"
            raise errors.InputError(f"config.data.name={name!r} has {len(source)} {text}")
        errors.check_range("config.data.heldout_examples", held, 1, len(source) - 1)
        # RandomState, not Generator: its stream is frozen (NEP 19), and a split must never change.
        drawn = np.random.RandomState(run_config.data_seed(config) % 2**32).permutation(len(source))
        splits = Splits(Subset(source, drawn[held:]), Subset(source, drawn[:held]))
    else:
        splits = Splits(parts["train"], parts["heldout"])
    if num := config.data.train_examples:
        most, hint = len(splits.train), ", or be 0 for all"
        errors.check_range("config.data.train_examples", num, 1, most, hint=hint)
        splits = splits._replace(train=Subset(splits.train, np.arange(num)))
    if len(splits.train) < config.batch_size:
        raise errors.InputError(
            f"config.batch_size={config.batch_size} exceeds the {len(splits.train)} training "
            f"examples of {config.data.name}"
        )
    return splits


def whole(config: Any) -> Source:
    """Opens the data set and returns all of its examples, of all splits.

    Raises:
        InputError: the files are missing or damaged.
    """
    return _joined.whole(_parts(config))


def heldout_share(num_examples: int) -> int:
    """Returns how many of so many examples are held out if the config leaves that open."""
    return max(1, min(num_examples // 10, 10_000))


def _parts(config: Any) -> dict[str, Source]:
    image, parts = example_spec(config).get("image"), _module(config).load(config.data)
    if image is None:
        return parts
    return {part: _pixels.checked(one, image, config.data.name) for part, one in parts.items()}


def _module(config: Any) -> Any:
    return registry.load("datasets", config.data.name, field="data.name")
