"""The fingerprint of a run's data, kept in `data.json`: data that changed are named and refused.

A folder that gained files, a renamed class or other pixels change which examples a step sees. The
run would go on without a word, as another one. So each start compares the data with those of the
start before, and all processes compare theirs.
"""

import contextlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline import datasets
from pipeline.runtime import files, peers
from pipeline.runtime.processes import alike
from pipeline.runtime.workdir import saved_config

NAME = "data.json"
SHOWN = 3  # changes that a line names
DIGEST = re.compile("[0-9a-f]{12,64}")


def of(splits: datasets.Splits) -> dict[str, str]:
    """Returns the fingerprint of both splits: {"train.examples": "1080", …}."""
    return {
        f"{split}.{name}": value
        for split, source in zip(splits._fields, splits, strict=True)
        for name, value in datasets.fingerprint(source).items()
    }


def check(ready: Any, workdir: Path, others: peers.Peers) -> dict[str, str]:
    """Returns the fingerprint, which all processes share and the run already had, if it is known.

    Args:
        ready: a `setup.Setup` with open data.
        workdir: of the run; nothing is written.
        others: the other processes, which call this, too.

    Raises:
        InputError: the processes have different data, or the data are not those of the run.
    """
    found, objection = of(ready.opened), ""
    kept = read(workdir)
    differing = differences(kept or {}, found)
    if kept == {} and saved_config.exists(workdir):  # a run from before there were fingerprints
        differing = datasets.since_older_versions(ready.given)
    if differing and not ready.given.data.accept_changes:
        objection = (
            f"the data are not those of the run in --workdir={workdir}: {differing}. Use the "
            "run's data, a new --workdir, or accept them with --config.data.accept_changes=True"
        )
    alike.check({f"the data's {name}": found[name] for name in found}, others, objection=objection)
    return found


def save(found: dict[str, str], workdir: Path, *, warn: Callable[[str], None]) -> None:
    """Writes `data.json` if it says something else; warns of changes and of a damaged file."""
    kept = read(workdir)
    if kept == found:
        return
    if kept is None:
        aside = files.set_aside(workdir / NAME)
        warn(f"{workdir / NAME} is damaged and set aside as {aside.name}: it was not compared")
    elif differing := differences(kept, found):
        warn(f"the data changed, as config.data.accept_changes allows: {differing}")
    files.write(workdir / NAME, json.dumps(found, indent=2, sort_keys=True) + "\n")


def changes(splits: datasets.Splits, workdir: Path) -> list[str]:
    """Returns a warning if these are not the data that the run in `workdir` was trained on."""
    differing = differences(read(workdir) or {}, of(splits))
    return [f"the data are not those of the run: {differing}"] if differing else []


def differences(kept: dict[str, str], found: dict[str, str]) -> str:
    """Returns a text that names what changed, or "".

    What only one of them has is no change: a later version may describe its data better.
    """
    splits: dict[str, list[str]] = {}  # by what changed
    for name in sorted(kept.keys() & found.keys(), reverse=True):  # train first
        if kept[name] != found[name]:
            split, _, what = name.partition(".")
            splits.setdefault(_change(what, kept[name], found[name]), []).append(split)
    texts = sorted(splits, key=lambda text: text.startswith("other "))
    named = "; ".join(f"{text} ({', '.join(splits[text])})" for text in texts[:SHOWN])
    return f"{named}; and {len(texts) - SHOWN} more" if texts[SHOWN:] else named


def _change(what: str, old: str, new: str) -> str:
    """Returns what changed, such as "examples 1300, were 1200" or "classes: new 'cat'"."""
    if DIGEST.fullmatch(old) and DIGEST.fullmatch(new):
        return f"other {what}"
    if old.isdecimal() and new.isdecimal():
        return f"{what} {new}, were {old}"
    before, now = old.split(", "), new.split(", ")
    gained = [item for item in now if item not in before]
    lost = [item for item in before if item not in now]
    if not gained and not lost:
        return f"{what} in another order"
    parts = [f"{word} {_few(items)}" for word, items in (("new", gained), ("gone", lost)) if items]
    return f"{what}: {', '.join(parts)}"


def _few(items: Sequence[str]) -> str:
    dots = f" and {len(items) - SHOWN} more" if items[SHOWN:] else ""
    return ", ".join(repr(item[:60]) for item in items[:SHOWN]) + dots


def read(workdir: Path) -> dict[str, str] | None:
    """Returns what the run keeps, {} if it keeps nothing, or None if the file is damaged."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        try:
            kept = json.loads((workdir / NAME).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                raise
            return None
        if isinstance(kept, dict) and all(isinstance(value, str) for value in kept.values()):
            return kept
        return None
    return {}
