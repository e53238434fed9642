"""The processes of a command that is not resumed: what ends one of them ends all."""

import contextlib
from collections.abc import Iterator
from typing import Any

from pipeline import distributed, errors, peers


@contextlib.contextmanager
def joined(options: Any, doing: str) -> Iterator[None]:
    """Joins the processes for the block.

    Args:
        options: has `distributed`, `coordinator`, `num_processes` and `process_id`.
        doing: what the others are told of this process.
    """
    distributed.initialize(options)
    others = peers.connect()
    others.doing = doing
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "JaxRuntimeError":
            others.settle()  # the sum that failed may be another process's death
        others.fail(*_said(error))
        raise
    others.leave()


def _said(error: BaseException) -> tuple[str, int]:
    """Returns the reason and the exit code for the others."""
    if isinstance(error, errors.InputError):
        return str(error), 2
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted", distributed.INTERRUPTED
    return f"{type(error).__name__}: {error}".split("\n")[0], peers.FAULT
