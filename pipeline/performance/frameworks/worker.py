"""One work in one framework, in a process of its own that runs a round of steps on request.

The other end, `Worker`, starts `python -m pipeline.frameworks.worker WORK FRAMEWORK OPTION…`. Lines
of JSON come back: first what has started, or why nothing has; then one for every line sent, when
the round is done. Between rounds the process waits, and takes nothing from the others.
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

ROUND_SECONDS = 0.5  # a round of steps takes so long, or one step where that is longer
WARM_UP_STEPS = 3


class Absent(Exception):
    """A form that can't be measured here; the message says why."""


class Worker:
    """The end that asks."""

    def __init__(
        self,
        work: str,
        framework: str,
        options: Sequence[str],
        *,
        environment: Mapping[str, str],
    ):
        """Starts the process, and waits until it has compiled and knows its speed.

        Raises:
            Absent: the framework isn't installed, has no such work, or has failed.
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
            Absent: the process has ended; what it took is no time.
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
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            said = self._log.read().strip().splitlines() or ["it said nothing"]
            return {"absent": f"it ended with {self._process.returncode}: {said[-1]}"}
        return json.loads(line)


def main(work: str, framework: str, *options: str) -> None:
    """Runs at the end that is asked."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print would stand between the answers

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
