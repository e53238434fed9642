"""One process of one form, which runs steps on request; `groups` is the side that asks.

`python -m pipeline.performance.frameworks.worker WORK CHANGES FRAMEWORK OPTION…` answers in lines
of JSON. The first line says what has started, or why nothing has. After that every line sent to it
holds a number of steps, and one line comes back when they are done. The number 0 asks what one step
sends to other processes. Between two requests the process waits, so it takes no time from others.
"""

import ctypes
import importlib
import json
import math
import os
import signal
import sys
import time
from typing import Any

ROUND_SECONDS = 0.5  # the least time of a round, which has at least one step
WARM_UP_STEPS = 3
PR_SET_PDEATHSIG = 1  # from prctl.h


def main(work: str, changes: str, framework: str, *options: str) -> None:
    """Runs in the process: sets the work up, then takes the steps that every line asks for."""
    _end_with_parent()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # else what frameworks print would mix with the answers

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    from pipeline.performance.frameworks import Unsuited, works

    try:
        module = importlib.import_module(f"pipeline.performance.frameworks.{framework}")
        run = module.start(works.make(work, changes), options)
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
    for line in sys.stdin:
        if num := int(line):
            run.steps(num)
            answer()
        else:
            answer(all_reduces=run.all_reduces())
    return None


def _end_with_parent() -> None:
    """Has Linux kill this process if its parent is killed; else it would first end its round."""
    if prctl := getattr(ctypes.CDLL(None), "prctl", None):
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
