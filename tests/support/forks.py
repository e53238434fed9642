"""Commands in forked processes: one process imports everything, and each command costs only a fork.

The process that forks must not use JAX's devices, because their threads do not survive a fork.
"""

import contextlib
import importlib
import os
import shutil
import signal
import sys
import time
import traceback
from typing import NamedTuple

SECONDS = 120  # longest time of a command
COMMANDS = ("train", "generate", "evaluate", "prepare", "plan", "benchmark")
# What the commands import only when it is needed.
LATER = (
    *("training.loop", "training.setup", "outputs.report", "outputs.samples", "display.terminal"),
    *("performance.planning", "performance.bench", "datasets.shards.workers"),
    "datasets.shards.sources.choosing",
)


class End(NamedTuple):
    """How a command ended: its exit code, or "it hangs", and what it printed."""

    code: int | str
    out: str
    err: str


def import_everything():
    for name in (*COMMANDS, *LATER):
        importlib.import_module(f"pipeline.{name}")


def start(work):
    """Runs `work` in a child of this process, and returns the child's id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(98)


def wait(child, seconds=SECONDS):
    """Returns the exit code of a child; one that takes too long is killed."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "it hangs"
        time.sleep(0.005)


def command(name, arguments, folder, prepare=lambda: None, *, seconds=SECONDS):
    """Runs the command in a child whose home is `folder`; returns its `End`.

    Args:
        name: of the module in `pipeline`.
        arguments: of the command.
        folder: an existing folder for the home, the cache and the output.
        prepare: is called in the child first.
        seconds: longest time.
    """
    code = wait(start(lambda: _run(name, arguments, folder, prepare)), seconds)
    read = [(folder / stream).read_text(errors="replace") for stream in ("out", "err")]
    return End(code, *read)


def _run(name, arguments, folder, prepare):
    for descriptor, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / stream, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), descriptor)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
    os.chdir(folder)  # odd flags may name files here
    os.environ |= {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    sys.argv = [name, *arguments]
    code = 99
    try:
        prepare()
        code = importlib.import_module(f"pipeline.{name}").main()
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code or 0)


def remove(folder):
    """Removes a folder, also if parts of it cannot be listed."""
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
