import os
import pathlib
import shutil
import zlib

import numpy as np
import pytest

from pipeline.datasets import _checked_rows, _image_decoder, image_folder
from pipeline.datasets.shards import making, plan
from pipeline.datasets.shards.sources import images
from pipeline.runtime import cache, errors
from tests.support.image_folders import config, folder, picture, reds, zipped


@pytest.fixture(autouse=True)
def fresh():
    image_folder.layout.cache_clear()  # which lasts as long as the process


def copies(tmp_path):
    """Returns the names of the folders of decoded copies."""
    return sorted(path.parent.name for path in (tmp_path / "cache").rglob("dataset.json"))


def test_a_changed_permission_or_time_or_path_leaves_no_other_copy(tmp_path, capsys):
    root = folder(tmp_path / "f", ["1.png", "2.png"])
    image_folder.load(config(root))
    capsys.readouterr()
    before = copies(tmp_path)
    (root / "1.png").chmod(0o600)
    os.utime(root / "2.png", (1, 1))
    image_folder.load(config(root))
    shutil.copytree(root, tmp_path / "g")
    assert reds(image_folder.load(config(tmp_path / "g"))["all"]) == [0, 1]
    assert copies(tmp_path) == before
    assert capsys.readouterr().out == ""


def test_a_copy_of_changed_data_takes_the_place_of_the_former(tmp_path):
    root = folder(tmp_path / "f", ["1.png", "2.png"])
    for path in (root, zipped(root)):
        image_folder.load(config(path))
        image_folder.load(config(path, image_size=4))
    assert len(copies(tmp_path)) == 4
    for value in (77, 78, 79):
        (root / "2.png").write_bytes(picture(value))
        image_folder.layout.cache_clear()
        for path in (root, zipped(root)):
            assert reds(image_folder.load(config(path))["all"]) == [0, value]
        assert len(copies(tmp_path)) == 4  # the other format keeps its own


def damage(path, kind):
    """Damages a file in one of several ways."""
    content = bytearray(path.read_bytes())
    if kind == "delete":
        path.unlink()
        return
    if kind == "flip":
        for position in range(0, len(content), 7):
            content[position] ^= 0x55
    if kind == "last":
        for position in range(min(len(content), 200)):
            content[-1 - position] ^= 1
    if kind == "pipe":
        path.unlink()
        os.mkfifo(path)
        return
    path.write_bytes(
        {"empty": b"", "cut": content[:-1], "longer": content + b"x"}.get(kind, content)
    )


@pytest.mark.parametrize("suffix", ["0.npy", "sums.npy", ".json", ".index", ".lock"])
@pytest.mark.parametrize("kind", ["flip", "last", "delete", "empty", "cut", "longer", "pipe"])
def test_damage_in_the_cache_is_found_and_repaired(tmp_path, suffix, kind, capsys):
    root = folder(tmp_path / "f", [f"{n}.png" for n in range(9)])
    image_folder.load(config(root))
    for path in (tmp_path / "cache").rglob(f"*{suffix}"):
        damage(path, kind)
    for _ in range(2):
        assert reds(image_folder.load(config(root))["all"]) == list(range(9))
    # The repaired copy is whole: nothing is decoded or repaired again.
    capsys.readouterr()
    assert reds(image_folder.load(config(root))["all"]) == list(range(9))
    assert capsys.readouterr().out == ""


def test_a_damaged_image_is_read_again_while_the_run_goes_on(tmp_path, capsys):
    root = folder(tmp_path / "f", [f"{n}.png" for n in range(9)])
    source = image_folder.load(config(root))["all"]
    (copy,) = (tmp_path / "cache").rglob("all-00000.npy")
    expected = source.read(np.arange(3))["image"]
    content = bytearray(copy.read_bytes())
    content[-5] ^= 64
    with open(copy, "r+b") as file:  # the same file, which is mapped
        file.write(content)
    capsys.readouterr()
    assert reds(source) == list(range(9))
    assert f"{copy} is damaged: its images are decoded again" in capsys.readouterr().out
    assert reds(source) == list(range(9))
    np.testing.assert_array_equal(source.read(np.arange(3))["image"], expected)
    content[-5] ^= 64
    assert copy.read_bytes() == content


def test_checksums_are_those_of_zlib_however_many_rows():
    rows = np.random.default_rng(0).integers(0, 256, (40, 10, 10, 3), np.uint8)
    expected = [zlib.crc32(row.tobytes()) for row in rows]
    assert _checked_rows.checksums(rows).tolist() == expected
    assert _checked_rows.checksums(rows[:, ::-1])[0] == zlib.crc32(rows[0, ::-1].tobytes())


def test_many_rows_are_compared_in_threads(monkeypatch):
    monkeypatch.setattr(_checked_rows, "MANY_BYTES", 2000)
    test_checksums_are_those_of_zlib_however_many_rows()


def test_without_a_home_folder_the_line_says_what_to_set(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(pathlib.Path, "home", no_home)
    with pytest.raises(errors.InputError, match=r"no home folder .* set XDG_CACHE_HOME"):
        cache.folder()


def test_a_damaged_image_whose_file_has_changed_is_one_line(tmp_path):
    root = folder(tmp_path / "f", ["1.png", "2.png"])
    source = image_folder.load(config(root))["all"]
    (copy,) = (tmp_path / "cache").rglob("all-00000.npy")
    with open(copy, "r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"xyz")
    (root / "2.png").write_bytes(picture(99))
    with pytest.raises(errors.InputError, match=r"is damaged, and the files .* start again"):
        reds(source)


def test_what_another_host_has_decoded_is_not_decoded_again(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "CACHE_ROWS", 2)
    root = folder(tmp_path / "f", [f"{n}.png" for n in range(9)])
    image_folder.load(config(root))
    (whole,) = (tmp_path / "cache").rglob("dataset.json")
    shutil.rmtree(whole.parent)
    source = images.opened(str(root))
    planned = plan.of_cache(source, _image_decoder.Format(8, 8, 3))
    plan.agree(whole.parent, planned)
    making.make(source, planned, whole.parent, planned.shards[1])  # as another host would
    made, rows = [], images.Images.rows

    def noted(self, part, first, stop):
        made.append(first)
        return rows(self, part, first, stop)

    monkeypatch.setattr(images.Images, "rows", noted)
    assert reds(image_folder.load(config(root))["all"]) == list(range(9))
    assert sorted(made) == [0, 4, 6, 8]
