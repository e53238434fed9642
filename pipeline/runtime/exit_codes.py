"""How a command ends: with an exit code, and with one line on stderr if it failed."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable

from pipeline.runtime import errors, output

COMPLETE = 0
FAULT = 1
MISTAKE = 2  # in the input; launchers do not retry it
RETRY = 75  # of a preempted run, which the same command resumes
INTERRUPTED = 130  # after Ctrl-C; launchers do not restart it


def of(command: Callable[[], int | None], *, again: bool = False) -> int:
    """Runs the command and returns its exit code; the command outlasts its stdout and stderr.

    Args:
        command: returns its own exit code; None means 0.
        again: whether the line after Ctrl-C says that the same command starts again.

    Returns:
        The command's own code; 2 after a mistake in the input, 75 if it should be tried again, 130
        after Ctrl-C, 1 after a fault.
    """
    output.outlast("command")
    try:
        return command() or COMPLETE
    except errors.InputError as error:
        errors.say(f"error: {error}")
        return MISTAKE
    except errors.TryAgain as error:
        errors.say(f"error: {error}")
        return RETRY
    except KeyboardInterrupt:
        text = "interrupted; the same command starts again" if again else "interrupted"
        errors.say(f"error: {text}")
        return INTERRUPTED
    except OSError as error:
        errors.say(f"error: {errors.reason(error)}")
        return FAULT
    except Exception as error:
        errors.say(traceback.format_exc().rstrip())
        errors.say(f"error: {errors.reason(error)}")
        return FAULT


def leave(code: int) -> None:
    """Flushes the output and ends the process at once, without exit handlers.

    JAX's exit handler would wait at a barrier for the other processes. If they died there, this
    process would end with another exit code.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None after `>&-`
        with contextlib.suppress(OSError):  # a full disk must not change the exit code
            stream.flush()
    os._exit(code)
