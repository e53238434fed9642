import errno
import io
import os
import pickle
import resource
import signal
import subprocess
import sys
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from pipeline.datasets import _dsprites_file, dsprites, sprites
from pipeline.runtime import cache, errors

CLASSES = np.stack(np.unravel_index(np.arange(0, 737_280, 11_551), sprites.FACTOR_SIZES), 1)
IMAGES = (sprites.render(CLASSES)[..., 0] > 0).astype(np.uint8)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vae-pipeline"


class Bomb:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def config(path):
    return ConfigDict({"name": "dsprites", "path": str(path)})


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def publish(path, *, images=IMAGES, classes=CLASSES, compression=zipfile.ZIP_DEFLATED, **members):
    """Writes a file like the published one; a member that is None is left out."""
    contents = {"imgs": images, "latents_classes": classes, "latents_values": CLASSES * 1.0}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in (contents | members).items():
            if value is not None:
                archive.writestr(f"{name}.npy", value if isinstance(value, bytes) else npy(value))
    return path


def refusal(path):
    """Returns the one error line that refuses to load."""
    with pytest.raises(errors.InputError) as raised:
        dsprites.load(config(path))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def overwrite(path, position, content):
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(content)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_images_and_factors_are_those_of_the_file(tmp_path, compression):
    path = publish(tmp_path / "d.npz", compression=compression)
    source = dsprites.load(config(path))["all"]
    assert len(source) == len(IMAGES)
    indices = np.array([63, 0, 5, 5])
    batch = source.read(indices)
    np.testing.assert_array_equal(batch["image"], IMAGES[indices][..., None] * 255)
    np.testing.assert_array_equal(batch["factors"], CLASSES[indices])
    for name, leaf in dsprites.spec(config("")).items():
        assert batch[name].shape == (4, *leaf.shape)
        assert batch[name].dtype == leaf.dtype


def test_a_folder_stands_for_the_published_file_in_it(tmp_path):
    publish(tmp_path / dsprites.FILE_NAME)
    assert len(dsprites.load(config(tmp_path))["all"]) == len(IMAGES)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    publish(tmp_path / "d.npz")
    assert len(dsprites.load(config("~/d.npz"))["all"]) == len(IMAGES)


def test_the_pickled_metadata_is_never_loaded(tmp_path):
    bomb = pickle.dumps(Bomb(tmp_path / "loaded"))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    dsprites.load(config(publish(tmp_path / "d.npz", metadata=header.getvalue() + bomb)))
    assert not (tmp_path / "loaded").exists()
    pickle.loads(bomb).close()
    assert (tmp_path / "loaded").exists()  # so the object would have created its file


def test_the_packed_copy_is_made_once_and_mapped(tmp_path, cache_folder):
    path = publish(tmp_path / "d.npz")
    first = dsprites.load(config(path))["all"]
    (copy,) = cache_folder.glob("*.npy")
    assert copy.stat().st_size == 128 + 512 * len(IMAGES)
    before = copy.stat().st_ino
    second = dsprites.load(config(path))["all"]
    rows = np.arange(len(IMAGES))
    np.testing.assert_array_equal(first.packed.read(rows), second.packed.read(rows))
    assert copy.stat().st_ino == before


def test_another_content_of_the_same_size_has_a_copy_of_its_own(tmp_path, cache_folder):
    options = {"compression": zipfile.ZIP_STORED}
    path = publish(tmp_path / "d.npz", **options)
    dsprites.load(config(path))
    size = path.stat().st_size
    publish(path, images=IMAGES[::-1].copy(), **options)
    assert path.stat().st_size == size
    image = dsprites.load(config(path))["all"].read(np.array([0]))["image"]
    np.testing.assert_array_equal(image[0, ..., 0], IMAGES[-1] * 255)
    assert len(list(cache_folder.glob("*.npy"))) == 2


@pytest.mark.parametrize("suffix", [".npy", ".sums"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", npy(np.zeros((3, 512), np.uint8))])
def test_a_copy_that_does_not_fit_is_made_anew(tmp_path, cache_folder, content, suffix):
    path = publish(tmp_path / "d.npz")
    dsprites.load(config(path))
    (copy,) = cache_folder.glob(f"*{suffix}")
    copy.write_bytes(content)
    image = dsprites.load(config(path))["all"].read(np.array([7]))["image"]
    np.testing.assert_array_equal(image[0, ..., 0], IMAGES[7] * 255)


@pytest.mark.parametrize("suffix", [".npy", ".sums"])
def test_flipped_bytes_of_a_copy_are_found_and_repaired(tmp_path, cache_folder, suffix, capsys):
    path = publish(tmp_path / "d.npz")
    before = dsprites.load(config(path))["all"].fingerprint()
    (copy,) = cache_folder.glob(f"*{suffix}")
    whole = copy.read_bytes()
    overwrite(copy, len(whole) - 100, b"\xa5" * 50)
    source = dsprites.load(config(path))["all"]
    images = source.read(np.arange(len(IMAGES)))["image"]
    np.testing.assert_array_equal(images[..., 0], IMAGES * 255)
    assert copy.read_bytes() == whole
    assert source.fingerprint() == before
    assert ("1 examples in" in capsys.readouterr().out) == (suffix == ".npy")


def test_images_are_streamed_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(_dsprites_file, "CHUNK", 50)
    images, classes = np.tile(IMAGES, (10, 1, 1)), np.tile(CLASSES, (10, 1))
    path = publish(tmp_path / "d.npz", images=images, classes=classes)
    tracemalloc.start()
    source = dsprites.load(config(path))["all"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < images.nbytes / 2
    image = source.read(np.arange(len(images)))["image"]
    np.testing.assert_array_equal(image[..., 0], images * 255)


def test_threads_read_the_same_bytes(tmp_path):
    source = dsprites.load(config(publish(tmp_path / "d.npz")))["all"]
    batches = np.random.default_rng(0).integers(0, len(IMAGES), (32, 16))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda rows: source.read(rows)["image"][..., 0], batches))
    for image, rows in zip(found, batches, strict=True):
        np.testing.assert_array_equal(image, IMAGES[rows] * 255)


def test_loads_at_the_same_time_don_t_disturb_each_other(tmp_path, cache_folder):
    settings = config(publish(tmp_path / "d.npz"))
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: dsprites.load(settings)["all"], range(4)))
    for source in loaded:
        rows = source.packed.read(np.arange(len(IMAGES)))
        np.testing.assert_array_equal(rows, np.packbits(IMAGES.reshape(-1, 4096), 1))
    assert len(list(cache_folder.iterdir())) == 2  # the copy and its checksums


def test_a_kill_in_the_middle_of_writing_leaves_no_copy(tmp_path, cache_folder):
    path = publish(tmp_path / "d.npz")
    dsprites.load(config(path))
    (copy,) = cache_folder.glob("*.npy")
    for file in cache_folder.iterdir():
        file.unlink()
    script = (
        "import os, pathlib, sys; from pipeline.runtime import cache\n"
        "with cache.writing(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).parents[2]
    died = subprocess.run([sys.executable, "-c", script, str(copy)], cwd=root)
    assert died.returncode == -signal.SIGKILL
    (left,) = cache_folder.iterdir()
    assert left.suffix == ".tmp"
    dsprites.load(config(path))
    assert copy.exists()
    assert left.exists()  # another process may still be writing it

    os.utime(left, (0, 0))
    with cache.writing(copy) as file:
        file.write(b"anew")
    assert {file.suffix for file in cache_folder.iterdir()} == {".npy", ".sums"}


def test_a_full_disk_is_told_and_leaves_no_file(tmp_path, cache_folder):
    path = publish(tmp_path / "d.npz")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"cannot write .*make room .*XDG_CACHE_HOME") as raised:
            dsprites.load(config(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.errno == errno.EFBIG
    assert list(cache_folder.iterdir()) == []


def test_a_cache_folder_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot write .*XDG_CACHE_HOME"):
        dsprites.load(config(publish(tmp_path / "d.npz")))


@pytest.mark.parametrize("root", ["", "relative"])
def test_the_cache_is_in_the_home_folder_where_none_is_named(tmp_path, monkeypatch, root):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", root)
    assert cache.folder() == tmp_path / ".cache" / "vae-pipeline"


def test_no_path_is_refused():
    assert "config.data.path is empty" in refusal("")


def test_a_missing_path_is_refused(tmp_path):
    assert "d.npz is missing: --config.data.path must be" in refusal(tmp_path / "d.npz")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / dsprites.FILE_NAME)
    assert "is a pipe, a socket or a device: --config.data.path must be" in refusal(tmp_path)
    assert "is a pipe" in refusal(tmp_path / dsprites.FILE_NAME)


def test_a_folder_without_the_file_is_refused(tmp_path):
    assert f"{tmp_path / dsprites.FILE_NAME} is missing" in refusal(tmp_path)


def test_a_file_that_is_no_zip_is_refused(tmp_path):
    (tmp_path / "d.npz").write_bytes(npy(IMAGES))
    assert "d.npz is damaged or not dSprites (File is not a zip file)" in refusal(
        tmp_path / "d.npz"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "no member imgs.npy"),
        ({"classes": None}, "no member latents_classes.npy"),
        ({"images": IMAGES[:, :32]}, "imgs is uint8 [64, 32, 64], not uint8 [64, 64, 64]"),
        ({"images": IMAGES[1:]}, "imgs is uint8 [63, 64, 64]"),
        ({"images": IMAGES.astype(np.float32)}, "imgs is float32"),
        ({"images": IMAGES.astype(object)}, "imgs is object"),
        ({"images": IMAGES * 255}, "imgs has the value 255, not only 0 and 1"),
        ({"images": np.asfortranarray(IMAGES)}, "an array in Fortran order"),
        ({"images": npy(IMAGES)[:-1]}, "an array ends 1 bytes early"),
        ({"images": npy(IMAGES) + b"\0"}, "bytes after the end of an array"),
        ({"images": b"no array"}, "d.npz is damaged or not dSprites"),
        ({"images": npy(IMAGES).replace(b"}", b" ")}, "d.npz is damaged or not dSprites"),
        ({"classes": CLASSES[:, 1:]}, "latents_classes is int64 [64, 5], not integers [N, 6]"),
        ({"classes": CLASSES * 1.0}, "latents_classes is float64"),
        ({"classes": CLASSES.astype(object)}, "latents_classes is object"),
        ({"classes": CLASSES + 1}, "latents_classes is empty or leaves the ranges"),
        ({"classes": CLASSES - 1}, "latents_classes is empty or leaves the ranges"),
        ({"classes": CLASSES[:0], "images": IMAGES[:0]}, "latents_classes is empty"),
    ],
)
def test_a_file_with_other_contents_is_refused(tmp_path, cache_folder, change, message):
    path = publish(tmp_path / "d.npz", **change)
    found = refusal(path)
    assert str(path) in found
    assert message in found
    assert not cache_folder.exists() or list(cache_folder.iterdir()) == []


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, cache_folder, kept):
    path = publish(tmp_path / "d.npz")
    os.truncate(path, int(kept * path.stat().st_size))
    assert "d.npz is damaged or not dSprites" in refusal(path)
    assert not cache_folder.exists()


@pytest.mark.parametrize("member", ["imgs.npy", "latents_classes.npy"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_flipped_bit_is_refused(tmp_path, cache_folder, member, compression):
    path = publish(tmp_path / "d.npz", compression=compression)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    # One of the last bytes of a stored member: a pixel, or a class that stays in its range.
    position = info.header_offset + 30 + len(member) + info.compress_size - 8
    byte = path.read_bytes()[position]
    overwrite(path, position, bytes([byte ^ 1]))
    assert "d.npz is damaged or not dSprites" in refusal(path)
    assert not cache_folder.exists() or list(cache_folder.iterdir()) == []
