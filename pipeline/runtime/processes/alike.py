"""All processes of a run are alike: what decides its result is compared before the first step.

Processes with another seed, package or number of devices would stop in a collective, or train on
without a word. So process 0 compares what all of them write into JAX's key-value store, which needs
no collective. All then continue, or all end with the same line.
"""

import itertools
import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.runtime import errors, peers

SHOWN = 3  # differences that a line names
POLL_SECONDS = 1
_meetings = itertools.count()


def check(facts: Mapping[str, Any], others: peers.Peers, *, objection: str = "") -> None:
    """Returns if all processes have the same facts; all of them must call it.

    Args:
        facts: by name; values are those of JSON.
        others: the other processes, which end with the same line.
        objection: of process 0, if it knows a reason of its own to end the run.

    Raises:
        InputError: they differ, or process 0 objects; on all processes.
    """
    from jax._src import distributed  # all processes share its key-value store

    shared = distributed.global_state
    if shared.client is not None and shared.num_processes > 1:
        objection = verdict(
            facts,
            shared.client,
            meeting=next(_meetings),
            process=shared.process_id,
            num_processes=shared.num_processes,
            objection=objection,
        )
    if objection:
        others.leave()  # all processes know it, so none has to be told
        raise errors.InputError(objection)


def verdict(
    facts: Mapping[str, Any],
    store: Any,
    *,
    meeting: int,
    process: int,
    num_processes: int,
    objection: str = "",
) -> str:
    """Returns on all processes why the run must end, or "".

    Args:
        facts: of this process.
        store: has `key_value_set` and `blocking_key_value_get`, as JAX's.
        meeting: the same number on all processes, and another one each time.
        process: number of this process.
        num_processes: of the run.
        objection: of process 0.
    """
    key = f"pipeline/alike/{meeting}"
    mine = {name: json.dumps(value, sort_keys=True) for name, value in facts.items()}
    store.key_value_set(f"{key}/{process}", json.dumps([socket.gethostname(), mine]))
    if process:
        return json.loads(_get(store, f"{key}/verdict"))
    all_of_them = [json.loads(_get(store, f"{key}/{number}")) for number in range(num_processes)]
    found = differences(all_of_them) or objection
    store.key_value_set(f"{key}/verdict", json.dumps(found))
    return found


def differences(found: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    """Returns a line that names what differs, or "".

    Args:
        found: host and facts of each process.
    """
    (host, first), texts = found[0], []
    for name in dict.fromkeys(name for _, facts in found for name in facts):
        here = first.get(name)
        others = [number for number, (_, facts) in enumerate(found) if facts.get(name) != here]
        if others:
            number, more = others[0], f" and {len(others) - 1} more" if others[1:] else ""
            there = found[number][1].get(name)
            texts.append(
                f"{name} (process 0 on {host}: {_shown(here)}, process {number} on "
                f"{found[number][0]}{more}: {_shown(there)})"
            )
    if not texts:
        return ""
    rest = f"; and {len(texts) - SHOWN} more" if texts[SHOWN:] else ""
    return (
        f"the processes of the run differ in {'; '.join(texts[:SHOWN])}{rest}: start all of them "
        "with the same command, code, packages, devices and data"
    )


def _get(store: Any, key: str) -> str:
    """Waits without a limit: one host may read its data for minutes, and `peers` finds losses."""
    while True:
        try:
            return store.blocking_key_value_get(key, 1000 * POLL_SECONDS)
        except Exception as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _shown(value: str | None) -> str:
    """Returns the value as a line shows it."""
    if value is None:
        return "none"
    text = value.strip('"')
    return text if len(text) <= 80 else f"{text[:77]}…"
