"""Reads pickles of NumPy arrays that Python 2 wrote, without running anything that they name.

Not even NumPy's own functions are called with arguments from the file. An array becomes a
`Recorded`, which the caller checks.
"""

import io
import pickle
from typing import Any

# Everything that a pickled array refers to.
NAMES = (("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"))


class Recorded:
    """Stands for a NumPy object: the arguments of its constructor, and its pickled state.

    The state of an array is (version, shape, dtype, Fortran order, bytes). The first argument of a
    dtype is its name.
    """

    def __init__(self, *arguments: Any):
        """Keeps the arguments."""
        self.arguments, self.state = arguments, ()

    def __setstate__(self, state: Any) -> None:
        """Keeps the state."""
        self.state = state


def loads(content: bytes) -> Any:
    """Returns numbers, bytes (Python 2's strings), tuples, lists, dicts and `Recorded`.

    Raises:
        UnpicklingError: the pickle asks for anything but an array.
        Exception: whatever pickle raises on damaged bytes.
    """
    return _Unpickler(io.BytesIO(content), encoding="bytes").load()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Returns `Recorded` for a known name, and refuses every other one before any import."""
        if (module, name) not in NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not run")
        return Recorded
