"""Local processes that make shards; the first one only watches them, and shows how far they are."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from pipeline.datasets.shards import listing, making, sources
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
    context = multiprocessing.get_context("spawn")  # a copy of a process with threads may hang
    counts = context.Array("q", processes, lock=False)
    with contextlib.ExitStack() as stack:
        ends = {
            stack.enter_context(_worker(context, source, plan, folder, counts, n)): n
            for n in range(processes)
        }
        _watch(ends, plan, folder, counts)


@contextlib.contextmanager
def _worker(
    context: Any, source: sources.Source, plan: Plan, folder: Path, counts: Any, number: int
) -> Iterator[Connection]:
    """Starts a process; yields where it says how it ended."""
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(there, source, plan, folder, counts, number))
    process.start()
    there.close()
    try:
        yield here
    finally:
        process.terminate()
        process.join()
        here.close()


def _work(
    end: Connection, source: sources.Source, plan: Plan, folder: Path, counts: Any, number: int
) -> None:
    """What a process does; it ends when the one that started it has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the first process too
    parent = os.getppid()

    def made(num: int) -> None:
        counts[number] += num
        if os.getppid() != parent:
            raise Orphaned

    try:
        making.work(source, plan, folder, made)
        end.send(None)
    except Orphaned:
        pass
    except (errors.InputError, OSError) as error:
        end.send((type(error) if isinstance(error, errors.InputError) else OSError, str(error)))
    except Exception as error:
        end.send((RuntimeError, f"{type(error).__name__}: {error}"))


def _watch(ends: dict[Connection, int], plan: Plan, folder: Path, counts: Any) -> None:
    total, sizes = sum(plan.rows.values()), {s.record: s.stop - s.first for s in plan.shards}
    began, report = time.perf_counter(), throttle.Throttle(REPORT_SECONDS)
    before = _rows_there(folder, sizes)
    with terminal.Terminal().progress(total, before, noun="image", transient=True) as progress:
        while ends:
            for end in wait([*ends], timeout=LOOK_SECONDS):
                assert isinstance(end, Connection)
                del ends[end]
                _raise_what_it_said(end)
            if report.due():
                own = sum(counts)
                done = min(total, max(before + own, _rows_there(folder, sizes)))
                rate = own / (time.perf_counter() - began)
                progress.update(done, metrics={"images_per_second": rate})


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


def _rows_there(folder: Path, sizes: dict[str, int]) -> int:
    return sum(sizes.get(name, 0) for name in listing.names(folder / UNFINISHED))
