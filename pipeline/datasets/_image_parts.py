"""Which folders are parts of a data set, told by their names: `train`, `Validation`, `test_set` …

A folder that is named like a part is never a class: held-out images would be trained on.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.runtime import errors

# Of several held-out folders, the first kind here is the held-out split.
HELDOUT = ("heldout", "validation", "evaluation", "test")
KINDS = {
    "train": "train|training|trn",
    "heldout": "heldout|holdout",
    "validation": "val|valid|validate|validation|dev|devel|development",
    "evaluation": "eval|evaluate|evaluation",
    "test": "test|tests|testing|tst",
}
# Words that may stand before or after, as in `train_images`, `test2017` or `PublicTest`.
FILLERS = (
    "data|datasets?|sets?|images?|imgs?|pics|pictures?|photos?|splits?|files|folder|part|samples?|"
    "examples?|seg|public|private|old|new|copy|raw"
)
EXACT = {
    kind: re.compile(f"(?:{FILLERS})*(?:{words})(?:{FILLERS})*") for kind, words in KINDS.items()
}
WORDS = {kind: re.compile(f"(?:{words})") for kind, words in KINDS.items()}


@functools.lru_cache(maxsize=2**14)
def kind(name: str) -> str:
    """Returns the kind of part that a folder's name means, or ""."""
    name = re.sub(r"(?<=[a-z])[AB]$", "", name)  # trainA and trainB of pairs of domains
    letters = re.sub(r"[\W\d_]+", "", name.lower())
    return next((kind for kind, pattern in EXACT.items() if pattern.fullmatch(letters)), "")


def check_names(path: Path, tops: Iterable[str]) -> None:
    """Raises an InputError if all folders seem to be parts, such as `cats_train` and `cats_val`."""
    kinds = [_kinds_of_words(top) for top in tops]
    if kinds and all(kinds) and set().union(*kinds) & set(HELDOUT):
        raise errors.InputError(
            f"{path} has folders that are named like parts, such as {min(tops)!r}: name them "
            "train and val, with the classes inside, or rename those that are classes"
        )


def check_inside(path: Path, names: Sequence[str]) -> None:
    """Raises an InputError if a folder below `path` is named like a held-out part."""
    for folder in sorted({name.rpartition("/")[0] for name in names if "/" in name}):
        if any(kind(part) in HELDOUT for part in folder.split("/")):
            raise errors.InputError(
                f"{path / folder} is named like a part, but lies in a class or a part: put train "
                "and val directly into the folder of the data, with the classes inside, or rename "
                "it"
            )


def divided(path: Path, tops: Sequence[str]) -> tuple[str, list[str]] | None:
    """Returns the folder to train on and the held-out ones, first the one to use; None: no parts.

    Args:
        path: of the folder, for errors.
        tops: its sub-folders.

    Raises:
        InputError: some are named like parts, and it is not clear which to use.
    """
    by_kind: dict[str, list[str]] = {}
    for top in tops:
        by_kind.setdefault(kind(top), []).append(top)
    by_kind.pop("", None)
    if not by_kind:
        return None
    for several in by_kind.values():
        if len(several) > 1:
            raise errors.InputError(
                f"{path} has {several[0]!r} and {several[1]!r}, and both are named like the same "
                "part: move one of them away, or rename it"
            )
    train = by_kind.pop("train", [])
    heldout = [by_kind[each][0] for each in HELDOUT if each in by_kind]
    if not train or not heldout:
        found = (train or heldout)[0]
        lacking = "train" if not train else "held-out images, such as val"
        raise errors.InputError(
            f"{path} has {found!r}, which is named like a part, but no folder for {lacking}: add "
            f"it, give what is inside (--config.data.path={path / found}), or rename {found!r} if "
            "it is a class"
        )
    return train[0], heldout


def _kinds_of_words(name: str) -> set[str]:
    words = re.findall("[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return {kind for word in words for kind, pattern in WORDS.items() if pattern.fullmatch(word)}
