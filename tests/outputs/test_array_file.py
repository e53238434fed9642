import numpy as np
import pytest

from pipeline.outputs import array_file


def test_an_array_file_is_there_when_its_last_row_is(tmp_path):
    path, rows = tmp_path / "a.npy", np.arange(12, dtype=np.int32).reshape(6, 2)
    with array_file.ArrayFile(path, (6, 2), np.dtype(np.int32)) as file:
        file.append(rows[:4])
        file.append(rows[4:])
        assert not path.exists()
    np.testing.assert_array_equal(np.load(path), rows)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [ValueError, None])
def test_an_array_file_that_is_not_finished_leaves_nothing(tmp_path, error):
    with (
        pytest.raises(error or AssertionError),
        array_file.ArrayFile(tmp_path / "a.npy", (6, 2), np.dtype(np.int32)) as file,
    ):
        file.append(np.zeros((4, 2), np.int32))
        if error:
            raise error
    assert not list(tmp_path.iterdir())


def test_an_array_file_on_a_full_disk_is_told(tmp_path, full_disk):
    with (
        pytest.raises(OSError, match=r"cannot write to .*a\.npy"),
        array_file.ArrayFile(tmp_path / "a.npy", (4, 4096), np.dtype(np.int32)) as file,
    ):
        file.append(np.zeros((4, 4096), np.int32))
    assert not list(tmp_path.iterdir())
