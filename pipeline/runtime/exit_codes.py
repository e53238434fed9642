"""How a command ends: its exit code, and one line on stderr where it can't go on."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable

from pipeline.runtime import errors

COMPLETE = 0
FAULT = 1
MISTAKE = 2  # in the input: no launcher tries again
RETRY = 75  # of a preempted run: the same command resumes it
INTERRUPTED = 130  # after Ctrl-C, so that no launcher restarts it


def of(command: Callable[[], int | None], *, again: bool = False) -> int:
    """Runs the command and returns its exit code.

    Args:
        command: returns its own code; None is 0.
        again: after Ctrl-C, say that the same command starts again.

    Returns:
        The command's; 2 after a mistake in the input, 130 after Ctrl-C, 1 after a fault.
    """
    try:
        return command() or COMPLETE
    except errors.InputError as error:
        errors.say(f"error: {error}")
        return MISTAKE
    except KeyboardInterrupt:
        text = "interrupted; the same command starts again" if again else "interrupted"
        errors.say(f"error: {text}")
        return INTERRUPTED
    except OSError as error:
        errors.say(f"error: {errors.reason(error)}")
        return FAULT
    except Exception as error:
        errors.say(traceback.format_exc().rstrip())
        errors.say(f"error: {type(error).__name__}: {error}".split("\n")[0])
        return FAULT


def leave(code: int) -> None:
    """Ends the process at once, its output written.

    Of several processes, a failed one must not wait for the others at JAX's barrier: their death
    there would replace this exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a full disk under a log
            stream.flush()
    os._exit(code)
