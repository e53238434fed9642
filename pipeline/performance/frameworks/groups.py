"""The processes of one form, which start, step and end together; one process is a group, too.

If a process ends early or is silent for too long, all processes of its group end, and `Absent` says
why. Every wait has a limit.
"""

import contextlib
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.performance.frameworks import places, worker

START_SECONDS = 300.0  # within which a form must have compiled; compilers take minutes
ROUND_SECONDS = 120.0  # within which a round must end; it is made to last half a second
END_SECONDS = 10.0  # for a process whose output has ended


class Absent(ChildProcessError):
    """The form cannot be measured here; the message says why."""


class Group:
    """The side that asks: a handle on the processes.

    Attributes:
        steps: number of steps in a round, alike in all processes.
        version: of the framework.
        device: cpu, gpu or tpu.
    """

    def __init__(
        self,
        work: str,
        framework: str,
        options: Sequence[str],
        *,
        environment: Mapping[str, str],
        changes: str = "",
        processes: int = 1,
        start_seconds: float = START_SECONDS,
    ):
        """Starts the processes, and waits until they are ready.

        Args:
            work: its name.
            framework: name of a file beside this one.
            options: of the form.
            environment: variables of every process, besides those of this one.
            changes: fields of the work's config, FIELD=VALUE[,…].
            processes: their number, which divides the work's batch.
            start_seconds: how long to wait; 0: not at all, `ready` must follow.

        Raises:
            Absent: the framework is not installed, has no such work, failed, or took too long.
        """
        self._processes: list[subprocess.Popen[str]] = []
        self._logs: list[Any] = []
        port = places.free_port() if processes > 1 else 0
        try:
            for index in range(processes):
                place = places.environment(places.Place(index, processes, port))
                command = [sys.executable, "-m", worker.__name__, work, changes, framework]
                self._start([*command, *options], os.environ | environment | place)
            if start_seconds:
                self.ready(start_seconds)
        except BaseException:
            self.close()
            raise

    def ready(self, seconds: float) -> None:
        """Waits until all processes have compiled and measured their speed.

        Raises:
            Absent: as the constructor.
        """
        started = self._answers(seconds)
        # Processes that exchange must take as many steps as each other.
        self.steps = max(answer["steps"] for answer in started)
        self.version, self.device = (started[0][name] for name in ("version", "device"))

    def resize(self) -> None:
        """Takes as many steps a round as fit today; a busy start may have found too few.

        Raises:
            Absent: as `round`.
        """
        began = time.monotonic()
        self.round()
        share = worker.ROUND_SECONDS / (time.monotonic() - began)
        self.steps = max(1, math.ceil(share * self.steps))

    def round(self, seconds: float | None = None) -> None:
        """Runs `steps` steps in every process, within at most ROUND_SECONDS or `seconds`.

        Raises:
            Absent: a process has ended, so the time of this round means nothing.
        """
        self._ask(self.steps, seconds or ROUND_SECONDS)

    def all_reduces(self) -> tuple[int, ...]:
        """Returns the bytes of each all-reduce of a step, as process 0 measures them.

        Raises:
            Absent: as `round`.
        """
        return tuple(self._ask(0, ROUND_SECONDS)[0]["all_reduces"])

    def close(self) -> None:
        """Ends all processes, and those that they have started."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):  # a request that nobody has read
                    stream.close()  # type: ignore[union-attr]
        for log in self._logs:
            log.close()

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._logs.append(tempfile.TemporaryFile("w+"))  # noqa: SIM115 - closed by `close`
        self._processes.append(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._logs[-1],
                env=dict(environment),
                text=True,
                start_new_session=True,  # `close` also ends what the process has started
            )
        )

    def _ask(self, number: int, seconds: float) -> list[dict[str, Any]]:
        for process in self._processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # `_answers` says how it ended
                process.stdin.write(f"{number}\n")
                process.stdin.flush()
        return self._answers(seconds)

    def _answers(self, seconds: float) -> list[dict[str, Any]]:
        """Returns one line of every process; if one fails, ends all and raises `Absent`."""
        end, found = time.monotonic() + seconds, {}
        with selectors.DefaultSelector() as selector:
            for index, process in enumerate(self._processes):
                assert process.stdout is not None
                selector.register(process.stdout, selectors.EVENT_READ, index)
            while selector.get_map():
                ready = selector.select(max(0.0, end - time.monotonic()))
                if not ready:
                    self._fail(f"it gave no answer within {seconds:g} s")
                for key, _ in ready:
                    line = key.fileobj.readline()  # type: ignore[union-attr]
                    found[key.data] = json.loads(line) if line else self._last_words(key.data)
                    if "absent" in found[key.data]:
                        self._fail(found[key.data]["absent"])
                    selector.unregister(key.fileobj)
        return [found[index] for index in sorted(found)]

    def _last_words(self, index: int) -> dict[str, str]:
        process, log = self._processes[index], self._logs[index]
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        log.seek(0)
        said = log.read().strip().splitlines() or ["it said nothing"]
        which = f"process {index}" if len(self._processes) > 1 else "it"
        return {"absent": f"{which} ended with {process.returncode}: {said[-1]}"}

    def _fail(self, reason: str) -> None:
        self.close()
        raise Absent(reason)
