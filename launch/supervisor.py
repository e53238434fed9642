"""A group of processes that start together, end together and share one exit code.

Exit code 75 starts the group again without limit. A failure starts it again up to `max_failures`
times in a row without progress. A mistake in the input (2) and Ctrl-C (130) never do.
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

MISTAKE, RETRY, INTERRUPTED, KILLED = 2, 75, 130, 128 + signal.SIGKILL
FROM_TERMINALS = (signal.SIGHUP, signal.SIGQUIT)
STOPS = (signal.SIGTERM, signal.SIGUSR1, *FROM_TERMINALS)
# A signal that arrives before Python has installed its handler kills; this is a preemption too.
PREEMPTED = {RETRY, *(128 + number for number in STOPS)}


class Command(NamedTuple):
    """What starts one process: its arguments and its whole environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str]


class Chaos:
    """Sends signals to random processes: every `seconds` in the mean, `faults` times at most."""

    def __init__(self, seconds: float, *, faults: int, seed: int):
        """Draws the time of the first signal; `seconds=0` sends none."""
        self._random, self._seconds = random.Random(seed), seconds
        self._left = faults if seconds > 0 else 0
        self.sent = {signal.SIGKILL: 0, signal.SIGTERM: 0}
        self._draw()

    def _draw(self) -> None:
        wait = self._random.expovariate(1 / self._seconds) if self._left else math.inf
        self.due = time.monotonic() + wait

    def strike(self, children: Sequence[subprocess.Popen]) -> None:
        """Sends SIGKILL or SIGTERM to one of the processes, and draws the next time."""
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
    """Starts the group again until it is complete or cannot be; returns the launcher's exit code.

    Args:
        start: returns the commands; it is called again at every start.
        progress: returns the step of the newest checkpoint, −1 if there is none.
        max_failures: restarts after failures without progress in between.
        grace_seconds: how long the other processes may run after one has ended with an error, and
            all of them after a forwarded signal. Those that remain are killed.
        chaos: sends signals in between. Failures that it may have caused are not counted.
    """
    events: queue.SimpleQueue = queue.SimpleQueue()  # of signals, and of processes that have ended
    # Signals and ends of processes go through one queue, so that one thread handles them in order.
    ignored = {n for n in FROM_TERMINALS if signal.getsignal(n) == signal.SIG_IGN}  # by nohup
    forwarded = {signal.SIGINT, *STOPS} - ignored
    before = {n: signal.signal(n, lambda number, frame: events.put(number)) for n in forwarded}
    restarts, failures, reached = {"after 75": 0, "after a failure": 0}, 0, progress()
    try:
        while True:
            strikes = sum(chaos.sent.values())
            children = [_spawn(index, command, events) for index, command in enumerate(start())]
            say(f"processes {', '.join(str(child.pid) for child in children)}")
            code, asked = _watch(children, events, grace_seconds=grace_seconds, chaos=chaos)
            # These ends are final: another start would end in the same way.
            if code in (0, MISTAKE, INTERRUPTED):
                return code
            if asked is not None:
                return INTERRUPTED if asked == signal.SIGINT else RETRY
            # Progress, and a start that chaos has hurt, reset the count of failures.
            at, reached = reached, progress()
            failed = code not in PREEMPTED
            if reached > at or sum(chaos.sent.values()) > strikes:
                failures = 0
            elif failed and failures == max_failures:
                say(f"exit code {code}: {failures} restarts made no progress after step {reached}")
                return code
            else:
                failures += failed
            restarts["after a failure" if failed else "after 75"] += 1
            say(f"exit code {code}, newest checkpoint {reached}: starting again")
    finally:
        # The handlers belong to the caller; the table says what chaos did.
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
    """Waits for all; returns the group's exit code, and the first forwarded signal or None."""
    running, codes, asked, deadline = list(children), [], None, math.inf
    killed: list[subprocess.Popen] = []
    while running:
        # Sleeps until a signal, the end of a process, the deadline or the next fault.
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
        # An integer is a signal to forward; anything else is a process that has ended.
        if isinstance(event, int):
            asked = asked or event
            for child in running:
                child.send_signal(event)
        else:
            running.remove(event)
            if event not in killed:  # in the order of their ends: the first failure caused the rest
                codes.append(event.returncode if event.returncode >= 0 else 128 - event.returncode)
        if not killed and (asked or any(codes)):
            deadline = min(deadline, time.monotonic() + grace_seconds)
    return _judge([*codes, KILLED] if killed and not any(codes) else codes), asked


def _judge(codes: Sequence[int]) -> int:
    """Returns the group's exit code: 2, 130, that of the first failure, 75 or 0, in this order."""
    failures = (code for code in codes if code and code not in PREEMPTED)
    for code in (MISTAKE, INTERRUPTED, *failures):
        if code in codes:
            return code
    return RETRY if any(codes) else 0


def _spawn(index: int, command: Command, events: queue.SimpleQueue) -> subprocess.Popen:
    """Starts a process; copies its lines with its number, and puts it into `events` at its end."""
    child = subprocess.Popen(
        command.arguments,
        env=command.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # else Ctrl-C reaches it twice: from the terminal and from here
    )
    copies = [
        threading.Thread(target=_copy, args=(index, *pair), daemon=True)
        for pair in ((child.stdout, sys.stdout), (child.stderr, sys.stderr))
    ]

    # A thread waits for the end of the process, so that the end arrives in the queue of signals.
    def wait() -> None:
        child.wait()
        for copy in copies:
            copy.join(timeout=1.0)  # limited, because a grandchild may keep the pipe open
        events.put(child)

    for thread in (*copies, threading.Thread(target=wait, daemon=True)):
        thread.start()
    return child


def _copy(index: int, source: IO[str], target: IO[str]) -> None:
    with source:
        for line in source:
            with contextlib.suppress(OSError, AttributeError):  # else the child would block
                target.write(f"[{index}] {line.rstrip()}\n")
                target.flush()


def say(text: str) -> None:
    """Prints a line of the launcher itself; does nothing if stderr is closed."""
    with contextlib.suppress(OSError):
        print(f"[launch] {text}", file=sys.stderr, flush=True)
