"""One work in one framework, in a process of its own that runs a round of steps on request.

`Worker` starts `python -m pipeline.performance.frameworks.worker WORK FRAMEWORK OPTION…`, which
answers in lines of JSON. The first line says what has started, or why nothing has. After that every
line sent to it starts a round, and one line comes back when the round is done. Between rounds the
process waits, so it takes no time from the others.
"""

import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

ROUND_SECONDS = 0.5  # the least time of a round, which has at least one step
WARM_UP_STEPS = 3


class Absent(Exception):
    """The form cannot be measured here; the message says why."""


class Worker:
    """The side that asks: a handle on the process."""

    def __init__(
        self,
        work: str,
        framework: str,
        options: Sequence[str],
        *,
        environment: Mapping[str, str],
    ):
        """Starts the process, and waits until it has compiled and measured its speed.

        Raises:
            Absent: the framework is not installed, has no such work, or failed.
        """
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, work, framework, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ | environment,
            text=True,
        )
        started = self._answer()
        if "absent" in started:
            self.close()
            raise Absent(started["absent"])
        self.steps, self.version, self.device = (
            started[name] for name in ("steps", "version", "device")
        )

    def round(self) -> None:
        """Runs `steps` steps.

        Raises:
            Absent: the process has ended, so the time of this round means nothing.
        """
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._answer()
        if "absent" in answer:
            raise Absent(answer["absent"])

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            stream.close()  # type: ignore[union-attr]

    def _answer(self) -> dict[str, Any]:
        """Returns the next line of the process; its last words as `absent` if it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            said = self._log.read().strip().splitlines() or ["it said nothing"]
            return {"absent": f"it ended with {self._process.returncode}: {said[-1]}"}
        return json.loads(line)


def main(work: str, framework: str, *options: str) -> None:
    """Runs in the process: sets the work up, then runs a round for every line of stdin."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # else what frameworks print would mix with the answers

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    from pipeline.performance.frameworks import Unsuited, works

    try:
        module = importlib.import_module(f"pipeline.performance.frameworks.{framework}")
        run = module.start(works.WORKS[work](), options)
    except ModuleNotFoundError as error:
        return answer(absent=f"{error.name} is not installed")
    except Unsuited as error:
        return answer(absent=str(error))
    # The first steps compile; the next ones say how many fit into a round.
    run.steps(WARM_UP_STEPS)
    began = time.perf_counter()
    run.steps(WARM_UP_STEPS)
    seconds = (time.perf_counter() - began) / WARM_UP_STEPS
    steps = max(1, math.ceil(ROUND_SECONDS / seconds))
    answer(steps=steps, version=run.version, device=run.device)
    for _ in sys.stdin:
        run.steps(steps)
        answer()
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
