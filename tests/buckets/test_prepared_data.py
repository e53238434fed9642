"""Data that were prepared into a bucket: the same bytes as in a folder, copied or read in place."""

import hashlib

import numpy as np
import pytest

from pipeline.runtime import errors, files
from pipeline.runtime.storage import places
from tests.support import prepared_data

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)


@pytest.fixture(params=["place", "s3_place"])
def any_place(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def arrays(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=np.arange(20) % 3)
    return tmp_path / "a.npz"


def digests(place):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in place.iterdir()}


@pytest.mark.parametrize("encoding", ["pixels", "png"])
def test_a_bucket_holds_the_bytes_of_a_folder_and_is_copied_once(
    any_place, arrays, tmp_path, encoding, capsys
):
    flags = "--per_shard=6", f"--encoding={encoding}"
    prepared_data.make(arrays, tmp_path / "folder", *flags)
    prepared_data.make(arrays, any_place, *flags)
    assert digests(any_place) == prepared_data.digests(tmp_path / "folder")
    assert "all was there" in prepared_data.make(arrays, any_place, *flags)
    for copied in (True, False):
        capsys.readouterr()
        found = prepared_data.everything(prepared_data.load(any_place)["all"])
        np.testing.assert_array_equal(found["image"], IMAGES)
        np.testing.assert_array_equal(found["label"], np.arange(20) % 3)
        assert ("Copying" in capsys.readouterr().out) == copied


def test_shards_are_read_in_place(place, arrays):
    shuffled = np.random.default_rng(1).permutation(20)
    for encoding in ("pixels", "png"):
        prepared_data.make(arrays, place / encoding, "--per_shard=6", f"--encoding={encoding}")
        source = prepared_data.load(place / encoding, copy="never")["all"]
        np.testing.assert_array_equal(source.read(shuffled)["image"], IMAGES[shuffled])


def test_pixels_in_s3_are_read_in_place_and_records_are_refused(s3_place, arrays):
    prepared_data.make(arrays, s3_place / "pixels")
    source = prepared_data.load(s3_place / "pixels", copy="never")["all"]
    np.testing.assert_array_equal(prepared_data.everything(source)["image"], IMAGES)
    prepared_data.make(arrays, s3_place / "png", "--encoding=png")
    source = prepared_data.load(s3_place / "png", copy="never")["all"]
    with pytest.raises(errors.InputError, match="can be read in place only in gs"):
        prepared_data.everything(source)


def test_two_processes_share_the_work_while_the_store_fails_now_and_then(
    place, arrays, tmp_path, proxy
):
    prepared_data.make(arrays, tmp_path / "folder", "--per_shard=2")
    proxy.shares, proxy.most = {"503": 0.1, "429": 0.1}, 4
    prepared_data.make(arrays, place, "--per_shard=2", processes=2)
    found = prepared_data.load(place)["all"]
    np.testing.assert_array_equal(prepared_data.everything(found)["image"], IMAGES)
    proxy.shares = {}
    assert digests(place) == prepared_data.digests(tmp_path / "folder")


def test_what_is_missing_is_one_line(place, arrays):
    text = "holds no prepared data set: dataset.json is missing"
    with pytest.raises(errors.InputError, match=text):
        prepared_data.load(place)
    with pytest.raises(errors.InputError, match="there is no bucket 'nowhere'"):
        prepared_data.make(arrays, places.of("gs://nowhere/data"))
    prepared_data.make(arrays, place, "--per_shard=6")
    (place / "all-00001.npy").unlink()
    for copy in ("auto", "never"):
        with pytest.raises(errors.InputError, match=r"all-00001.npy is missing"):
            prepared_data.load(place, copy=copy)
    assert "1 shards were missing" in prepared_data.make(arrays, place, "--per_shard=6")
    files.write(place / "all-00001.npy", bytes((place / "all-00001.npy").stat().st_size))
    with pytest.raises(errors.InputError, match=r"all-00001.npy is damaged or was altered"):
        prepared_data.load(place)
