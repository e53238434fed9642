"""Pickles of arrays are read, and nothing in them is executed."""

import io
import pickle
from typing import ClassVar

import numpy as np
import pytest

from pipeline.runtime import inert_pickle

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


class Python2Pickler(pickle._Pickler):
    """A pickler that writes bytes as Python 2 wrote its strings."""

    def save_string(self, value):
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch: ClassVar = pickle._Pickler.dispatch | {bytes: save_string}


def python2(value):
    """Returns the pickle that Python 2 would have written, with NumPy's names of that time."""
    file = io.BytesIO()
    Python2Pickler(file, 2).dump(value)
    return file.getvalue().replace(b"numpy._core.", b"numpy.core.")


def test_an_array_is_what_made_it_and_its_state():
    found = inert_pickle.loads(python2({b"data": PIXELS, b"labels": [1, 2, 3]}))
    _, shape, dtype, fortran, content = found[b"data"].state
    assert (tuple(shape), dtype.arguments[0], fortran) == ((3, 4), "u1", False)
    assert content == PIXELS.tobytes()
    assert found[b"labels"] == [1, 2, 3]


class Call:
    """An object that calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, protocol):
    mark = tmp_path / "ran"
    content = pickle.dumps(Call(exec, f"open({str(mark)!r}, 'w').close()"), protocol)
    with pytest.raises(pickle.UnpicklingError, match="exec, which is not run"):
        inert_pickle.loads(content)
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()  # it would have


@pytest.mark.parametrize(
    "name", ["numpy\nload", "numpy\nndarray.tofile", "numpy.core.multiarray\nfromfile",
             "os\nsystem", "pipeline.runtime.inert_pickle\nloads"],
)  # fmt: skip
def test_only_the_names_of_arrays_are_known(name):
    asked = name.replace("\n", ".")
    with pytest.raises(pickle.UnpicklingError, match=f"asks for {asked}, which is not run"):
        inert_pickle.loads(f"c{name}\n.".encode())


def test_known_names_do_nothing_of_their_own():
    # numpy.ndarray((10**15,)) would ask for a petabyte.
    found = inert_pickle.loads(b"cnumpy\nndarray\n(I1000000000000000\ntR.")
    assert found.arguments == (10**15,)
    assert found.state == ()
