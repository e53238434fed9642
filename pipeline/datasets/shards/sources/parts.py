"""Which of several tables, files or arrays are `train` and `heldout`, told by their names."""

import re
from collections.abc import Iterable, Mapping

from pipeline.datasets import _image_parts
from pipeline.display import terminal
from pipeline.runtime import errors


def chosen(names: Iterable[str], shown: str) -> dict[str, list[str]]:
    """Returns the names that make up each part: `train` and `heldout`, or `all`.

    Of several held-out kinds the first one of `_image_parts.HELDOUT` is chosen, as for folders of
    images.

    Args:
        names: of splits, files or arrays, in their order.
        shown: the source, for errors.

    Raises:
        InputError: a held-out part without a part to train on; or only some are named like parts.
    """
    names = list(names)
    by_kind: dict[str, list[str]] = {}
    for name in names:
        by_kind.setdefault(kind(name), []).append(name)
    heldout = [one for one in _image_parts.HELDOUT if one in by_kind]
    if not heldout:
        return {"all": names}
    if "train" not in by_kind:
        raise errors.InputError(
            f"{shown} has {by_kind[heldout[0]][0]!r}, but nothing that is named train: name both, "
            "or neither"
        )
    if strays := by_kind.get("", []):
        raise errors.InputError(
            f"{shown} has {strays[0]!r} beside train and {heldout[0]}: name it like a part, or "
            "move it away"
        )
    return {"train": by_kind["train"], "heldout": by_kind[heldout[0]]}


def of_splits(sizes: Mapping[str, int], shown: str) -> dict[str, str]:
    """Returns the name of the split that makes up each part; notes which ones are left out.

    Args:
        sizes: numbers of examples by the name of the split.
        shown: the source, for errors.

    Raises:
        InputError: it is not clear which split to train on.
    """
    known = [name for name in sizes if kind(name)] if len(sizes) > 1 else list(sizes)
    found = {part: names[0] for part, names in chosen(known, shown).items() if names}
    if not found or (len(found) == 1 and len(known) > 1):
        raise errors.InputError(
            f"{shown} has the splits {', '.join(sizes)}, and needs one that is named train"
        )
    if unused := [f"{name!r} ({num:,})" for name, num in sizes.items()
                  if name not in found.values()]:  # fmt: skip
        terminal.Terminal().note(f"{shown}: not read: {', '.join(unused)}")
    return found


def kind(name: str) -> str:
    """Returns the kind of part that a word of a name means, or ""."""
    words = re.findall("[a-z]+", name.lower())
    return next((found for word in words if (found := _image_parts.kind(word))), "")
