"""Local processes that make shards; the first one only watches them, and shows how far they are."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from pipeline.datasets.shards import encoding, listing, making, sources
from pipeline.datasets.shards.plan import UNFINISHED, Plan
from pipeline.display import terminal
from pipeline.runtime import errors, throttle

REPORT_SECONDS = 5.0
LOOK_SECONDS = 0.5


class Orphaned(Exception):
    """The process that started this one has ended."""


def make_all(source: sources.Source, plan: Plan, folder: Path, *, processes: int) -> None:
    """Returns when all shards of the plan are there, made by these processes or on other hosts.

    Raises:
        InputError: the source cannot be read.
        OSError: a shard cannot be written, or a process was killed.
    """
    with contextlib.ExitStack() as stack:
        show = stack.enter_context(shown(plan, folder))
        if processes == 1:
            own = 0

            def made(num: int) -> None:
                nonlocal own
                own += num
                show(own)

            with encoding.quietly():
                making.work(source, plan, folder, made)
            return
        context = multiprocessing.get_context("spawn")  # a copy of a process with threads may hang
        counts = context.Array("q", processes, lock=False)
        ends = [
            stack.enter_context(_worker(context, source, plan, folder, counts, number))
            for number in range(processes)
        ]
        while ends:
            for end in wait(ends, timeout=LOOK_SECONDS):
                assert isinstance(end, Connection)
                ends.remove(end)
                _raise_what_it_said(end)
            show(sum(counts))


@contextlib.contextmanager
def shown(plan: Plan, folder: Path) -> Iterator[Callable[[int], None]]:
    """Yields a function that shows how far all hosts are, from the number of rows made here."""
    total, sizes = sum(plan.rows.values()), {s.record: s.stop - s.first for s in plan.shards}

    def there() -> int:
        return sum(sizes.get(name, 0) for name in listing.names(folder / UNFINISHED))

    began, report, before = time.perf_counter(), throttle.Throttle(REPORT_SECONDS), there()
    with terminal.Terminal().progress(total, before, noun="image", transient=True) as progress:

        def show(own: int) -> None:
            if report.due():
                rate = own / (time.perf_counter() - began)
                done = min(total, max(before + own, there()))
                progress.update(done, metrics={"images_per_second": rate})

        yield show


@contextlib.contextmanager
def _worker(
    context: Any, source: sources.Source, plan: Plan, folder: Path, counts: Any, number: int
) -> Iterator[Connection]:
    """Starts a process; yields where it says how it ended."""
    here, there = context.Pipe(duplex=False)
    process = context.Process(
        target=_work, args=(there, os.getpid(), source, plan, folder, counts, number)
    )
    process.start()
    there.close()
    try:
        yield here
    finally:
        process.terminate()
        process.join()
        here.close()


def _work(
    end: Connection,
    parent: int,
    source: sources.Source,
    plan: Plan,
    folder: Path,
    counts: Any,
    number: int,
) -> None:
    """What a process does; it ends when `parent`, which started it, has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the first process too

    def made(num: int) -> None:
        counts[number] += num
        if os.getppid() != parent:
            raise Orphaned

    try:
        with encoding.quietly():
            making.work(source, plan, folder, made)
        end.send(None)
    except Orphaned:
        pass
    except (errors.InputError, OSError) as error:
        end.send((type(error) if isinstance(error, errors.InputError) else OSError, str(error)))
    except Exception as error:
        end.send((RuntimeError, f"{type(error).__name__}: {error}"))


def _raise_what_it_said(end: Connection) -> None:
    try:
        said = end.recv()
    except EOFError:
        raise OSError(
            "a process that made shards was killed, perhaps for lack of memory: the same command "
            "goes on, with fewer --processes or smaller shards (--per_shard)"
        ) from None
    if said is not None:
        kind, text = said
        raise kind(text)
