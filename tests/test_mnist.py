import functools
import gzip
import hashlib
import http.server
import struct
import threading

import numpy as np
import pytest
from ml_collections import ConfigDict

from pipeline import errors
from pipeline.datasets import mnist

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
LABELS = np.array([0, 9, 3, 1, 4, 4], np.uint8)
IMAGE_FILE = struct.pack(">4I", 2051, 6, 28, 28) + IMAGES.tobytes()
LABEL_FILE = struct.pack(">2I", 2049, 6) + LABELS.tobytes()


@pytest.fixture
def folder(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    for part in ("train", "t10k"):
        (files / f"{part}-images-idx3-ubyte").write_bytes(IMAGE_FILE)
        (files / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(LABEL_FILE))
    return files


def load(path):
    return mnist.load(ConfigDict({"path": str(path)}))


def test_plain_and_gzipped_files_are_read(folder):
    parts = load(folder)
    batch = parts["heldout"].read(np.array([5, 1]))
    np.testing.assert_array_equal(batch["image"][..., 0], IMAGES[[5, 1]])
    np.testing.assert_array_equal(batch["label"], [4, 9])
    assert len(parts["train"]) == 6


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("train-images-idx3-ubyte", IMAGE_FILE[:-1], "truncated or no idx file"),
        ("train-images-idx3-ubyte", b"", "truncated or no idx file"),
        ("train-images-idx3-ubyte", LABEL_FILE + bytes(16), "truncated or no idx file"),
        ("t10k-labels-idx1-ubyte.gz", gzip.compress(LABEL_FILE)[:-9], "is damaged"),
        ("t10k-labels-idx1-ubyte.gz", b"<html>", "is damaged"),
        ("t10k-labels-idx1-ubyte.gz", gzip.compress(LABEL_FILE[:-1] + b"\x0a"), "up to 10"),
    ],
)
def test_a_damaged_file_is_named(folder, name, body, words):
    (folder / name).write_bytes(body)
    with pytest.raises(errors.InputError, match=words) as error:
        load(folder)
    assert str(folder) in str(error.value)


def test_a_missing_file_is_named(folder):
    (folder / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(errors.InputError, match=r"t10k-images-idx3-ubyte\[.gz\] is missing"):
        load(folder)


@pytest.fixture
def mirror(folder, monkeypatch):
    for path in list(folder.iterdir()):
        raw = path.read_bytes()
        body = gzip.decompress(raw) if path.suffix == ".gz" else raw
        name = path.name.removesuffix(".gz")
        (folder / f"{name}.gz").write_bytes(gzip.compress(body))
        monkeypatch.setitem(mnist.MD5, name, hashlib.md5(body).hexdigest())

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        # Nothing listens on the discard port: the second mirror is tried.
        monkeypatch.setattr(mnist, "MIRRORS", ("http://127.0.0.1:9/", address))
        yield folder
        server.shutdown()
        thread.join()


def test_without_a_path_the_files_are_downloaded_once(mirror):
    np.testing.assert_array_equal(load("")["train"].label, LABELS)
    for path in mirror.iterdir():
        path.unlink()
    np.testing.assert_array_equal(load("")["train"].label, LABELS)


def test_a_damaged_download_is_refused_and_leaves_nothing(mirror, tmp_path):
    damaged = IMAGE_FILE[:-1] + bytes([IMAGE_FILE[-1] ^ 1])
    (mirror / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(damaged))
    with pytest.raises(errors.InputError, match=r"wrong checksum.*config.data.path=FOLDER"):
        load("")
    assert list((tmp_path / "cache" / "vae-pipeline" / "mnist").iterdir()) == []
