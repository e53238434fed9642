"""The same training steps in several frameworks: one file each, `start(work, options)` → `Run`.

`options` are those of a form in `forms`: `compile`, `channels-last` or `keep-freed`. `start` raises
an ImportError if the framework is not installed, and `Unsuited` if the framework has no such work.
A work's `batch_size` counts the images of all processes; `places.here()` says which one this is.
"""

from collections.abc import Callable
from typing import NamedTuple


class Run(NamedTuple):
    """A work that one framework has set up and can step."""

    steps: Callable[
        [int], None
    ]  # runs this many steps, and returns after the device has finished them
    version: str  # of the framework
    device: str  # cpu, gpu or tpu
    # Returns the bytes of each all-reduce of one step; all processes must call it together.
    all_reduces: Callable[[], tuple[int, ...]] = tuple


class Unsuited(Exception):
    """The framework has no such work, or not on this machine; the message says why."""
