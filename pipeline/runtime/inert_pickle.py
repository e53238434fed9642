"""Reads the pickles of NumPy arrays that Python 2 wrote, and runs nothing that they ask for.

Not even NumPy's own functions are called with arguments from a file. What would be an array becomes
a `Recorded`, which the caller checks.
"""

import io
import pickle
from typing import Any

# All that a pickled array refers to.
NAMES = (("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"))


class Recorded:
    """Stands for a NumPy object: the arguments that made it, and the state it was given.

    Of an array the state is (version, shape, dtype, Fortran order, bytes); of a dtype the first
    argument is its name.
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
        """Refuses every other name before anything of it is imported."""
        if (module, name) not in NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not run")
        return Recorded
