"""Arrays of a model as a file in the format safetensors: named, typed, and without code.

A name is the path of an array in its tree, such as `decoder.layers.0.kernel`. The file's metadata
have one entry, `about`: JSON that describes the model.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, numpy

from pipeline.runtime import errors, files


def named(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by their paths; names of nested keys are joined by dots."""
    return {_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def like(tree: Any, arrays: Mapping[str, Any], *, source: Any) -> Any:
    """Returns a tree of the form of `tree` with the arrays of these names.

    Args:
        tree: of arrays, or of their shapes and dtypes.
        arrays: by name; further ones are left out.
        source: where the arrays come from, for the error.

    Raises:
        InputError: an array is missing, or has another shape or dtype.
    """

    def found(path, leaf):
        name, array = _name(path), arrays.get(_name(path))
        wanted = f"{np.dtype(leaf.dtype).name} {list(leaf.shape)}"
        if array is None:
            raise errors.InputError(f"{source} has no array {name!r}: {wanted} is needed")
        if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
            raise errors.InputError(
                f"{source} has {name!r} as {array.dtype.name} {list(array.shape)}: {wanted} is "
                "needed, so it belongs to another model"
            )
        return array

    return jax.tree.map_with_path(found, tree)


def encoded(arrays: Mapping[str, Any], about: Mapping[str, Any]) -> bytes:
    """Returns the bytes of a file; equal arrays and descriptions have equal bytes."""
    # One entry, because the library writes several in any order.
    metadata = {"about": json.dumps(about, sort_keys=True)}
    return numpy.save(
        {name: np.array(arrays[name], order="C") for name in sorted(arrays)}, metadata
    )


def write(path: Path, arrays: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Writes a file atomically, in a folder or bucket; `about` goes through JSON."""
    files.write(path, encoded(arrays, about))


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the arrays of a file by name, and what it says `about` them ({} if nothing).

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size]).get("__metadata__", {})
        return numpy.load(content), json.loads(metadata.get("about", "{}"))
    except FileNotFoundError:
        raise errors.InputError(f"{path} is missing") from None
    except (SafetensorError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise errors.InputError(
            f"{path} cannot be read as safetensors ({reason}): put a whole copy there"
        ) from None


def _name(path: Any) -> str:
    return ".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path)
