"""Processes that start together, end together and are judged together.

Exit code 75 starts the group again without limit, a failure up to `max_failures` times in a row
without progress; a mistake in the input (2) and Ctrl-C (130) never do.
"""

import contextlib
import math
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, NamedTuple

MISTAKE, RETRY, INTERRUPTED = 2, 75, 130
# A signal in the moment before Python listens to it is a preemption as well.
PREEMPTED = {RETRY, 128 + signal.SIGTERM, 128 + signal.SIGUSR1}
KILLED = 128 + signal.SIGKILL
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Command(NamedTuple):
    """One process to be: its arguments and its whole environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str]


class Chaos:
    """Strikes random processes at random moments: every `seconds` in the mean, `faults` at most."""

    def __init__(self, seconds: float, *, faults: int, seed: int):
        """Draws the first moment; with `seconds=0` there is none."""
        self._random, self._seconds = random.Random(seed), seconds
        self._left = faults if seconds > 0 else 0
        self.sent = {signal.SIGKILL: 0, signal.SIGTERM: 0}
        self._draw()

    def _draw(self) -> None:
        wait = self._random.expovariate(1 / self._seconds) if self._left else math.inf
        self.due = time.monotonic() + wait

    def strike(self, children: Sequence[subprocess.Popen]) -> None:
        """Sends one of the two signals to one of the processes, and draws the next moment."""
        if alive := [child for child in children if child.poll() is None]:
            child, number = self._random.choice(alive), self._random.choice(list(self.sent))
            say(f"chaos: {number.name} to process {child.pid}")
            child.send_signal(number)
            self.sent[number] += 1
            self._left -= 1
        self._draw()


def supervise(
    start: Callable[[], Sequence[Command]],
    *,
    progress: Callable[[], int],
    max_failures: int,
    grace_seconds: float,
    chaos: Chaos,
) -> int:
    """Starts the group until it is complete or can't be; returns the exit code for the launcher.

    Args:
        start: the commands, made anew at every start.
        progress: the step of the newest checkpoint, −1 where there is none.
        max_failures: restarts after failures without progress in between.
        grace_seconds: how long the others may stay when one has ended with an error, and all of
            them after a forwarded signal; what is left is killed.
        chaos: strikes in between; a failure it caused says nothing of the run and isn't counted.
    """
    events: queue.SimpleQueue = queue.SimpleQueue()  # of signals, and of processes that have ended
    before = {n: signal.signal(n, lambda number, frame: events.put(number)) for n in FORWARDED}
    restarts, failures, reached = {"after 75": 0, "after a failure": 0}, 0, progress()
    try:
        while True:
            strikes = sum(chaos.sent.values())
            children = [_spawn(index, command, events) for index, command in enumerate(start())]
            say(f"processes {', '.join(str(child.pid) for child in children)}")
            code, asked = _watch(children, events, grace_seconds=grace_seconds, chaos=chaos)
            if code in (0, MISTAKE, INTERRUPTED):
                return code
            if asked is not None:
                return INTERRUPTED if asked == signal.SIGINT else RETRY
            at, reached = reached, progress()
            failed = code not in PREEMPTED
            if reached > at or sum(chaos.sent.values()) > strikes:
                failures = 0
            elif failed and failures == max_failures:
                say(f"exit code {code}: {failures} restarts made no progress behind step {reached}")
                return code
            else:
                failures += failed
            restarts["after a failure" if failed else "after 75"] += 1
            say(f"exit code {code}, newest checkpoint {reached}: starting again")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if any(chaos.sent.values()):
            for kind, count in {**{n.name: k for n, k in chaos.sent.items()}, **restarts}.items():
                say(f"{'faults' if kind.isupper() else 'restarts':10}{kind:17}{count:4}")


def _watch(
    children: Sequence[subprocess.Popen],
    events: queue.SimpleQueue,
    *,
    grace_seconds: float,
    chaos: Chaos,
) -> tuple[int, int | None]:
    """Returns when all have ended: the group's exit code, and the first signal forwarded."""
    running, codes, asked, deadline = list(children), [], None, math.inf
    killed: list[subprocess.Popen] = []
    while running:
        wait = min(deadline, chaos.due) - time.monotonic()
        try:
            event = events.get(timeout=min(max(wait, 0.0), 3600.0))
        except queue.Empty:
            if time.monotonic() >= deadline:
                killed, deadline = list(running), math.inf
                say(f"{grace_seconds:g} s are over: killing {len(killed)} process(es)")
                for child in killed:
                    child.kill()
            elif time.monotonic() >= chaos.due:
                chaos.strike(running)
            continue
        if isinstance(event, int):
            asked = asked or event
            for child in running:
                child.send_signal(event)
        else:
            running.remove(event)
            if event not in killed:  # in the order of their ends: the first failure is the cause
                codes.append(event.returncode if event.returncode >= 0 else 128 - event.returncode)
        if not killed and (asked or any(codes)):
            deadline = min(deadline, time.monotonic() + grace_seconds)
    return _judge([*codes, KILLED] if killed and not any(codes) else codes), asked


def _judge(codes: Sequence[int]) -> int:
    """Returns the group's exit code: a mistake, Ctrl-C, the first failure, 75, or 0."""
    failures = (code for code in codes if code and code not in PREEMPTED)
    for code in (MISTAKE, INTERRUPTED, *failures):
        if code in codes:
            return code
    return RETRY if any(codes) else 0


def _spawn(index: int, command: Command, events: queue.SimpleQueue) -> subprocess.Popen:
    """Starts a process; its lines appear with its number, its end in `events`."""
    child = subprocess.Popen(
        command.arguments,
        env=command.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # else Ctrl-C reaches it twice: from the terminal, and forwarded
    )
    copies = [
        threading.Thread(target=_copy, args=(index, *pair), daemon=True)
        for pair in ((child.stdout, sys.stdout), (child.stderr, sys.stderr))
    ]

    def wait() -> None:
        child.wait()
        for copy in copies:
            copy.join(timeout=1.0)  # not for ever: a grandchild may keep the pipe open
        events.put(child)

    for thread in (*copies, threading.Thread(target=wait, daemon=True)):
        thread.start()
    return child


def _copy(index: int, source: IO[str], target: IO[str]) -> None:
    with source:
        for line in source:
            with contextlib.suppress(OSError):  # the reading goes on, or the child ends
                target.write(f"[{index}] {line.rstrip()}\n")
                target.flush()


def say(text: str) -> None:
    """Prints a line of the launcher's own, where that can be written."""
    with contextlib.suppress(OSError):
        print(f"[launch] {text}", file=sys.stderr, flush=True)
