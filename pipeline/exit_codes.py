"""How a command ends: its exit code, and one line on stderr where it can't go on."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable

from pipeline import distributed, errors


def of(command: Callable[[], int | None], *, again: bool = False) -> int:
    """Runs the command and returns its exit code.

    Args:
        command: returns its own code; None is 0.
        again: after Ctrl-C, say that the same command starts again.

    Returns:
        The command's; 2 after a mistake in the input, 130 after Ctrl-C, 1 after a fault.
    """
    try:
        return command() or 0
    except errors.InputError as error:
        errors.say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        text = "interrupted; the same command starts again" if again else "interrupted"
        errors.say(f"error: {text}")
        return distributed.INTERRUPTED
    except OSError as error:
        errors.say(f"error: {errors.reason(error)}")
        return 1
    except Exception as error:
        errors.say(traceback.format_exc().rstrip())
        errors.say(f"error: {type(error).__name__}: {error}".split("\n")[0])
        return 1


def leave(code: int) -> None:
    """Ends the process at once, its output written.

    Of several processes, a failed one must not wait for the others at JAX's barrier: their death
    there would replace this exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a full disk under a log
            stream.flush()
    os._exit(code)
