"""The same training steps in several frameworks: one file each, `start(work, options)` → `Run`.

`options` are the words of a form: `compile`, `channels-last`, … A file whose framework is not
installed raises an ImportError, one whose framework has no such work an `Unsuited`.
"""

from collections.abc import Callable
from typing import NamedTuple


class Run(NamedTuple):
    """A work that has started in one framework."""

    steps: Callable[[int], None]  # takes so many steps, and returns when they are done
    version: str  # of the framework
    device: str  # cpu, gpu or tpu


class Unsuited(Exception):
    """The framework has no such work, or not on this machine; the message says why."""
