"""Arrays as Python gives them to a trained model: each is checked before anything is computed.

Floats are images in [0, 1] whatever the data set's range is: that is what a model returns. Whole
numbers have the data set's dtype and range, or are bytes of 0 … 255.
"""

import operator
from typing import Any

import jax
import numpy as np

from pipeline import datasets
from pipeline.runtime import errors

SHOWN = 60  # characters of a value in an error


def array(given: Any, name: str) -> np.ndarray:
    """Returns a NumPy array of what was given.

    Raises:
        InputError: it is no array, or has no value because a transformation traces it.
    """
    try:
        found = np.asarray(given)
    except jax.errors.TracerArrayConversionError:
        raise errors.InputError(
            f"{name} have no values here: within jit, grad and vmap use model.functions"
        ) from None
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:SHOWN]
        raise errors.InputError(f"{name} cannot be made an array ({reason}): give one") from None
    # Types of the package ml_dtypes, such as bfloat16.
    is_small_float = found.dtype.kind == "V" and jax.numpy.issubdtype(found.dtype, np.floating)
    return found.astype(np.float32) if is_small_float else found


def images(given: Any, pixels: datasets.Pixels, *, binarize: bool) -> np.ndarray:
    """Returns images [N, H, W, C]: in the data set's dtype, bytes, or float32 in [0, 1].

    Args:
        given: the user's images.
        pixels: shape, dtype and range of the data set's.
        binarize: rounds them to 0 and 1, as the run's data are.

    Raises:
        InputError: they have another shape, dtype or range.
    """
    found = array(given, "images")
    _check_rows(found, "images", tuple(pixels.shape))
    if found.dtype.kind == "f":
        _check_range(found, "images", 0.0, 1.0, "scale them, as model.pixels.unit(images) does")
        found = found.astype(np.float32)
        return (found >= 0.5).astype(np.float32) if binarize else found
    if found.dtype == pixels.dtype:
        low, high = pixels.ends
        _check_range(found, "images", low, high, "that is the range of the run's data")
    elif found.dtype != np.uint8:
        own = "" if pixels.dtype in (np.uint8, np.float16, np.float32) else f", {pixels.text()}"
        raise errors.InputError(
            f"images of {found.dtype}: convert them to uint8 of 0 … 255{own} or floats in [0, 1]"
        )
    return np.where(found >= 128, 255, 0).astype(np.uint8) if binarize else found


def latents(given: Any, dim: int | None) -> np.ndarray:
    """Returns latents, [N, D] float32; D may be unknown.

    Raises:
        InputError: they have another shape, are no numbers, or are not finite.
    """
    found = array(given, "latents")
    _check_rows(found, "latents", None if dim is None else (dim,))
    if found.dtype.kind not in "iuf":
        raise errors.InputError(f"latents of {found.dtype}: give floats")
    with np.errstate(over="ignore"):
        found = found.astype(np.float32)
    _check_range(found, "latents", -np.inf, np.inf, "give finite float32 numbers")
    return found


def codes(given: Any, shape: tuple[int, ...], num_codes: int) -> np.ndarray:
    """Returns codes, [N, h, w] or [N, h, w, Q] int32.

    Raises:
        InputError: they have another shape, are no whole numbers, or no codes of the model.
    """
    found = array(given, "codes")
    _check_rows(found, "codes", shape)
    if found.dtype.kind not in "iu":
        raise errors.InputError(f"codes of {found.dtype}: give whole numbers, as encode returns")
    _check_range(found, "codes", 0, num_codes - 1, f"the model has {num_codes} codes")
    return found.astype(np.int32)


def integer(given: Any, name: str, least: int, most: int) -> int:
    """Returns a whole number of that range.

    Raises:
        InputError: it is none, or outside the range.
    """
    try:
        found = operator.index(given)
    except TypeError:
        found = None
    if found is None or isinstance(given, bool) or not least <= found <= most:
        raise errors.InputError(
            f"{name}={shown(given)} must be a whole number between {least} and {most}"
        )
    return found


def shown(given: Any) -> str:
    """Returns a short text of a value, in one line."""
    text = " ".join(repr(given).split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 2]} …"


def _check_rows(found: np.ndarray, name: str, shape: tuple[int, ...] | None) -> None:
    """Raises an InputError unless there are N ≥ 1 rows of that shape (None: any)."""
    if (found.shape[1:] != shape and shape is not None) or not found.ndim:
        wanted = f"[N{''.join(f', {n}' for n in shape or ())}]"
        more = ""
        if found.shape == shape:
            more = f"; of a single one, give {name}[None]"
        elif shape and shape[-1] == 1 and found.shape[1:] == shape[:-1]:
            more = f"; the last axis is of channels: {name}[..., None]"
        raise errors.InputError(
            f"{name} have the shape {list(found.shape)}, and the run's model takes {wanted}{more}"
        )
    if not len(found):
        raise errors.InputError(f"{name} have the shape {list(found.shape)}: give one or more")


def _check_range(found: np.ndarray, name: str, low: Any, high: Any, repair: str) -> None:
    """Raises an InputError that names the first value that is not finite or outside the range."""
    wrong = ~((found >= low) & (found <= high) & np.isfinite(found))
    if not wrong.any():
        return
    place = np.unravel_index(int(wrong.argmax()), found.shape)
    bounds = f"must lie between {low:g} and {high:g}" if np.isfinite(low) else "must be finite"
    if not np.isfinite(found[place]):
        repair = "repair the data"
    raise errors.InputError(
        f"{name}{[int(at) for at in place]}={found[place]:g} {bounds}: {repair}"
    )
