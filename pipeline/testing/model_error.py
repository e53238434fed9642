"""What `check_model` says: the error of a model that breaks its contract, or a report."""

from typing import Any, NamedTuple

import numpy as np

PAGE = "see pipeline/models/README.md"
COUPLED = f"define `shown` and `coupled` for what needs the whole batch, {PAGE}"
HOST = "draw with `keys`, and read no state of Python, NumPy or the clock in a model"


class ModelError(AssertionError):
    """A model breaks the contract of `pipeline.models`; the message is one line."""


class Report(NamedTuple):
    """What `check_model` did: a sentence for each check."""

    checked: tuple[str, ...]
    skipped: tuple[str, ...]  # with the reason


def require(condition: bool, text: str) -> None:
    """Raises a ModelError with that text if the condition is false."""
    if not condition:
        raise ModelError(text)


def require_equal(found: Any, expected: Any, text: str, *, tolerance: float, repair: str) -> None:
    """Raises a ModelError if two trees differ, with the first leaf that does and by how much.

    Args:
        found: arrays, or trees of them.
        expected: of the same structure.
        text: what differs and why it must not; the name of the leaf is put before it.
        tolerance: of the difference, relative to the largest value of the leaf; 0: equal bits.
        repair: what to do.
    """
    import jax  # not on top: importing `pipeline.testing` imports no JAX

    pairs = zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True)
    for (path, one), other in pairs:
        one, other = _array(one), _array(other)
        if one.tobytes() == other.tobytes():
            continue
        # NaN beside NaN is equal here: `gradients` says where values are not finite.
        with np.errstate(all="ignore"):
            wide = np.float64 if one.dtype.kind in "fiub" else one.dtype
            gap = np.abs(one.astype(wide) - other.astype(wide))
        gap = np.where((one == other) | ((one != one) & (other != other)), 0, gap)
        largest = float(np.max(np.abs(other), initial=0, where=np.isfinite(other)))
        difference = float(np.max(gap))
        if difference <= tolerance * largest and (tolerance or not difference):
            continue
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "it"
        raise ModelError(f"{name} {text}: by {difference:.2g} of {largest:.2g}; {repair}")


def _array(leaf: Any) -> np.ndarray:
    import jax

    if hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return array if array.dtype.kind in "fiub" else array.astype(np.float32)
