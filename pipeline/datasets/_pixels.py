"""The pixels of a data set: their dtype and range, as its `spec` states them.

Images travel in their own dtype and are scaled to [0, 1] on the devices. Values outside the stated
range would train as something else, without a word. So the first examples are compared with the
`spec` when a data set is opened, and each batch with the range if its dtype holds other values.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from pipeline.runtime import errors

DTYPES = ("uint8", "uint16", "float16", "float32")
SAMPLE = 64  # examples that are compared with the range before training


@dataclasses.dataclass(frozen=True)
class Pixels:
    """The abstract entry `image`: its shape, its dtype, and the range that becomes [0, 1].

    For uint8 and uint16 the range may be left out: then it is the whole range of the dtype.
    """

    shape: Any  # a tuple, [H, W, C]; a signal is [L, 1, C]
    dtype: Any = np.uint8  # uint8, uint16, float16 or float32
    low: Any = None
    high: Any = None

    def __post_init__(self) -> None:
        """Fills in the range of whole numbers."""
        dtype, whole = np.dtype(self.dtype), (self.low, self.high) == (None, None)
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "dtype", dtype)
        if whole and dtype.kind == "u":
            object.__setattr__(self, "low", 0)
            object.__setattr__(self, "high", int(np.iinfo(dtype).max))

    @property
    def is_plain(self) -> bool:
        """Whether these are bytes of 0 … 255, which every model takes as they are."""
        return self.dtype == np.uint8 and self.ends == (0, 255)

    @property
    def ends(self) -> tuple[np.generic, np.generic]:
        """`low` and `high`, rounded to the dtype."""
        return self.dtype.type(self.low), self.dtype.type(self.high)

    @property
    def resolution(self) -> float | None:
        """The distance of two neighbouring values in [0, 1], None for floats."""
        low, high = self.ends
        return 1.0 / (float(high) - float(low)) if self.dtype.kind == "u" else None

    def unit(self, image: Any) -> Any:
        """Scales images, NumPy's or JAX's, to float32 in [0, 1]."""
        low, high = (np.float32(end) for end in self.ends)
        return (image.astype(np.float32) - low) / (high - low)

    def restored(self, image: np.ndarray) -> np.ndarray:
        """Returns images of [0, 1] in their own dtype and range; whole numbers are rounded."""
        low, high = (np.float32(end) for end in self.ends)
        image = np.clip(image, 0.0, 1.0) * (high - low) + low
        return (np.rint(image) if self.dtype.kind == "u" else image).astype(self.dtype)

    def text(self) -> str:
        """Returns dtype and range, such as "uint16 of 0 … 4095"."""
        return f"{self.dtype.name} of {self.low:g} … {self.high:g}"


class Checked(NamedTuple):
    """A source whose images are compared with the `spec` whenever they are read."""

    source: Any
    pixels: Pixels
    name: str  # config.data.name

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.source)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the source's arrays.

        Raises:
            InputError: the images are not as the `spec` says.
        """
        found = self.source.read(indices)
        _check_array(found.get("image"), len(indices), self.pixels, self.name)
        image, (low, high) = found["image"], self.pixels.ends
        if image.dtype == np.float16:  # whose least and largest value NumPy finds slowly
            image = image.astype(np.float32)
        if not (  # also if one of them is NaN
            image.min(initial=high) >= low and image.max(initial=low) <= high
        ):
            _refuse_value(image, indices, self.pixels, self.name)
        return found


def of(entry: Any) -> Pixels:
    """Returns the entry `image` of a `spec`; a `jax.ShapeDtypeStruct` may stand for bytes."""
    return entry if isinstance(entry, Pixels) else Pixels(entry.shape, entry.dtype)


def check(entry: Any, name: str, *, binarize: bool = False) -> None:
    """Raises an InputError in one line if no model here can train on such images.

    Args:
        entry: `image` of a data set's `spec`.
        name: of the data set.
        binarize: `config.data.binarize`.
    """
    shape, dtype, says = tuple(entry.shape), np.dtype(entry.dtype), _says(name)
    if dtype.name not in DTYPES:
        raise errors.InputError(
            f"{says} has images of {dtype.name}: convert them to {', '.join(DTYPES[:-1])} or "
            f"{DTYPES[-1]}, and state their range if it is not the whole one of the dtype"
        )
    if len(shape) != 3 or min(shape) < 1:
        kind = "images [H, W, C] are needed: [H, W, 1] for grey, [L, 1, C] for signals"
        if len(shape) == 4:
            kind = "volumes cannot be trained on: use their slices, [H, W, C]"
        raise errors.InputError(f"{says} has images of shape {list(shape)}: {kind}")
    pixels = of(entry)
    if pixels.low is None or pixels.high is None:
        raise errors.InputError(
            f"{says} has images of {dtype.name} and does not say which range becomes [0, 1]: state "
            f"its least and largest value, in the `spec` by datasets.Pixels({list(shape)}, "
            f"'{dtype.name}', low, high)"
        )
    if not _is_range(pixels):
        raise errors.InputError(
            f"{says} states the range {pixels.low:g} … {pixels.high:g} of {dtype.name}: both must "
            "be values of that dtype, and the first must be below the second"
        )
    if binarize and not pixels.is_plain:
        raise errors.InputError(
            f"config.data.binarize=True rounds bytes of 0 … 255, and {says} has {pixels.text()}: "
            "set it to False, or round them in the data"
        )


def checked(source: Any, entry: Any, name: str) -> Any:
    """Compares some examples of a source with the `spec`; returns a source to read from.

    Bytes of 0 … 255 are read from the source itself, which then costs nothing more.

    Raises:
        InputError: the images are not as the `spec` says.
    """
    pixels, num = of(entry), len(source)
    if pixels.is_plain:
        if num:
            _check_array(source.read(np.arange(1)).get("image"), 1, pixels, name)
        return source
    found = Checked(source, pixels, name)
    found.read(np.linspace(0, max(num - 1, 0), min(num, SAMPLE)).round().astype(np.int64))
    return found


def _is_range(pixels: Pixels) -> bool:
    """Says whether both ends are values of the dtype that lie apart, also in float32."""
    ends = pixels.low, pixels.high
    if not all(np.isfinite(end) and abs(end) <= _most(pixels.dtype) for end in ends):
        return False
    if pixels.dtype.kind == "u" and not all(end >= 0 and end == int(end) for end in ends):
        return False
    low, high = (np.float32(end) for end in pixels.ends)
    with np.errstate(over="ignore"):
        return bool(low < high and np.isfinite(high - low))


def _most(dtype: Any) -> float:
    return float(np.iinfo(dtype).max if dtype.kind == "u" else np.finfo(dtype).max)


def _check_array(image: Any, num: int, pixels: Pixels, name: str) -> None:
    found = "nothing" if image is None else f"{image.dtype} {list(image.shape)}"
    if image is None or (image.dtype, image.shape) != (pixels.dtype, (num, *pixels.shape)):
        raise errors.InputError(
            f"{_says(name)}: its source reads {num} examples with `image` of {found}, and its "
            f"`spec` promises {pixels.dtype} {[num, *pixels.shape]}: make them agree"
        )


def _refuse_value(image: np.ndarray, indices: np.ndarray, pixels: Pixels, name: str) -> None:
    low, high = pixels.ends
    wrong = ~((image >= low) & (image <= high))
    row, *place = np.argwhere(wrong)[0]
    raise errors.InputError(
        f"{_says(name)}: example {indices[row]} has the value {image[(row, *place)]} at "
        f"{[int(at) for at in place]}, outside its range of {pixels.low:g} … {pixels.high:g}: "
        "repair the data, or state their range (--config.data.low, --config.data.high for arrays)"
    )


def _says(name: str) -> str:
    return f"config.data.name={name!r}"
