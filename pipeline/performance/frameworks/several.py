"""The same works in several processes: speed, efficiency and exchange, beside PyTorch's DDP.

Every process has the work's whole batch and an equal share of the threads. Each form also runs in
two other ways, in turn with the first:

- *one*: one process with the work's batch and the threads that one of several has. Its time of a
  step over theirs is the efficiency (weak scaling): 1 if a further process costs nothing.
- *whole*: one process with all threads and the batch of all processes. Its time over theirs says
  whether a machine should be cut into processes: above 1, it should.

All of it runs on CPUs. JAX's processes exchange by gloo too.
"""

import contextlib
from typing import Any, NamedTuple

import numpy as np

from pipeline.display import terminal
from pipeline.performance import timing
from pipeline.performance.frameworks import forms, places, works
from pipeline.performance.frameworks.groups import Absent, Group

SEVERAL, ONE, WHOLE = "several", "one", "whole"
BEST = "best of DDP"
HEADER = (
    "images/s",
    "efficiency",
    "one process of all threads: its step over theirs",
    "a process adds, ms",
    "all-reduces",
    "bytes a step",
    "its step over ours",
    "our efficiency over its",
)


class Way(NamedTuple):
    """In how many processes a form runs, with how many threads each and batches altogether."""

    processes: int
    threads: int
    batches: int


def ways(processes: int, threads: int) -> dict[str, Way]:
    """Returns the ways in which each form runs, on as many threads."""
    share = threads // processes
    return {
        SEVERAL: Way(processes, share, processes),
        ONE: Way(1, share, 1),
        WHOLE: Way(1, threads, processes),
    }


def compare(
    work: str,
    *,
    processes: int,
    threads: int,
    rounds: int,
    screen: terminal.Terminal,
    changes: str = "",
) -> dict[str, Any]:
    """Measures one work in every form that runs here in several processes.

    Args:
        work: its name.
        processes: at least two.
        threads: of all processes together.
        rounds: in each of which everything runs once.
        screen: shows which forms are left out, and why.
        changes: fields of the work's config, FIELD=VALUE[,…].

    Returns:
        {form: figures of `figures`}; BEST has those of DDP's fastest form.

    Raises:
        RuntimeError: our own form does not run.
    """
    batch = works.make(work, changes).config.batch_size
    with contextlib.ExitStack() as stack:
        groups: dict[tuple[str, str], Group] = {}
        for name, form in forms.together().items():
            try:
                with contextlib.ExitStack() as started:
                    own = {
                        (name, way): started.enter_context(
                            contextlib.closing(_group(work, form, how, batch, changes))
                        )
                        for way, how in ways(processes, threads).items()
                    }
                    stack.push(started.pop_all())
            except Absent as reason:
                if name == forms.OURS:
                    raise RuntimeError(f"{work}: {reason}") from None
                screen.note(f"{work}: no {name}: {reason}")
                continue
            groups |= own
        screen.note(f"{work}: {rounds} rounds of {len(groups)} groups of processes")
        candidates = {key: group.round for key, group in groups.items()}
        taken = timing.in_turn(candidates, rounds=rounds)
        sent = {n: _sent(groups[n, way], n, screen) for n, way in groups if way == SEVERAL}
        versions = {name: groups[name, ONE].version for name in sent}
    seconds = {key: [s / groups[key].steps for s in taken[key]] for key in groups}
    found = figures(seconds, sent, images=processes * batch)
    found = {name: found[name] | {"version": versions[name]} for name in found}
    rivals = [found[name] for name in found if name != forms.OURS]
    if rivals:
        found[BEST] = min(rivals, key=lambda figure: figure["ratio"].median)
    return found


def _group(work: str, form: forms.Form, way: Way, batch: int, changes: str) -> Group:
    sizes = f"batch_size={way.batches * batch}"
    return Group(
        work,
        form.framework,
        form.options,
        environment=forms.environment(form, way.threads) | places.only_cpu(),
        changes=f"{changes},{sizes}" if changes else sizes,
        processes=way.processes,
    )


def _sent(group: Group, name: str, screen: terminal.Terminal) -> tuple[int, ...]:
    """Returns the bytes of each all-reduce of a step; none if measuring them ends the process."""
    try:
        return group.all_reduces()
    except Absent as reason:  # PyTorch's profiler can crash; the times are known by then
        screen.note(f"no bytes of {name}: {reason}")
        return ()


def figures(
    seconds: dict[tuple[str, str], list[float]], sent: dict[str, tuple[int, ...]], *, images: int
) -> dict[str, dict[str, Any]]:
    """Returns the figures of every form; ratios are paired by rounds.

    Args:
        seconds: of a step in each round, by form and way.
        sent: bytes of each all-reduce of a step, by form.
        images: of all processes in a step.

    Returns:
        {form: figures}. `images_per_second` is that of all processes, `efficiency` and `cut` are
        the time of *one* and of *whole* over theirs, and `added_ms` what their step takes longer
        than *one*. `ratio` is the form's time in several processes over ours: it compares speeds
        of one process times efficiency. `gain` is our efficiency over the form's. `all_reduces`
        and `bytes` are those of a step.
    """
    arrays = {key: np.asarray(taken) for key, taken in seconds.items()}
    ours = arrays[forms.OURS, SEVERAL]
    our_efficiency = arrays[forms.OURS, ONE] / ours
    found: dict[str, dict[str, Any]] = {}
    for name in sent:
        here = arrays[name, SEVERAL]
        efficiency = arrays[name, ONE] / here
        found[name] = {
            "ms": 1000 * timing.median(seconds[name, SEVERAL]),
            "images_per_second": images / timing.median(seconds[name, SEVERAL]),
            "efficiency": timing.quartiles(efficiency),
            "cut": timing.quartiles(arrays[name, WHOLE] / here),
            "added_ms": timing.quartiles(1000 * (here - arrays[name, ONE])),
            "all_reduces": len(sent[name]),
            "bytes": sum(sent[name]),
            "ratio": timing.quartiles(here / ours),
            "gain": timing.quartiles(our_efficiency / efficiency),
        }
    return found


def table(found: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Returns a header, and one row per form."""
    rows = [["form", *HEADER]]
    for name, figure in found.items():
        ours = name == forms.OURS
        rows.append(
            [
                name,
                f"{figure['images_per_second']:,.0f}",
                str(figure["efficiency"]),
                str(figure["cut"]),
                "{:.2f} ({:.2f} to {:.2f})".format(*figure["added_ms"]),
                str(figure["all_reduces"] or "–"),
                f"{figure['bytes']:,}" if figure["all_reduces"] else "–",
                "–" if ours else str(figure["ratio"]),
                "–" if ours else str(figure["gain"]),
            ]
        )
    return rows
