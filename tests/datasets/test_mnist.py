import gzip
import hashlib
import http.server
import os
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from pipeline.datasets import mnist
from pipeline.runtime import download, errors

DATA = Path(__file__).parents[3] / "shared" / "data" / "mnist"
SIZES = {"train": 12, "t10k": 5}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mnist, "MIRRORS", ())  # no test uses the network
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "vae-pipeline" / "mnist"


def config(path=""):
    return ConfigDict({"name": "mnist", "path": str(path)})


def idx(array):
    header = np.array([0x0800 + array.ndim, *array.shape], ">u4")
    return header.tobytes() + array.astype(np.uint8).tobytes()


def digits():
    """Returns {file name: images or labels} of both splits."""
    rng, files = np.random.default_rng(0), {}
    for part, num in SIZES.items():
        files[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (num, 28, 28))
        files[f"{part}-labels-idx1-ubyte"] = rng.integers(0, 10, num)
    return files


def publish(folder, *, rename="{}", pack=bytes, **changes):
    """Writes the four files; a change (its name has _) replaces a content, None removes it."""
    folder.mkdir(exist_ok=True)
    for name, array in digits().items():
        content = changes.get(name.replace("-", "_"), pack(idx(array)))
        if content is not None:
            (folder / rename.format(name)).write_bytes(content)
    return folder


def refusal(path=""):
    """Returns the one error line that refuses to load."""
    with pytest.raises(errors.InputError) as raised:
        mnist.load(config(path))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def assert_is_digits(parts):
    known = digits()
    for split, part in {"train": "train", "heldout": "t10k"}.items():
        num = SIZES[part]
        assert len(parts[split]) == num
        order = np.arange(num)[::-1]
        batch = parts[split].read(order)
        np.testing.assert_array_equal(
            batch["image"][..., 0], known[f"{part}-images-idx3-ubyte"][order]
        )
        np.testing.assert_array_equal(batch["label"], known[f"{part}-labels-idx1-ubyte"][order])
        for name, leaf in mnist.spec(config()).items():
            assert batch[name].shape == (num, *leaf.shape)
            assert batch[name].dtype == leaf.dtype


@pytest.fixture
def mirror(monkeypatch):
    """Starts a mirror that serves `bodies` by path; checksums become those of the small files."""
    bodies: dict[str, bytes] = {}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = bodies.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        contents = {name: idx(array) for name, array in digits().items()}
        checksums = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
        monkeypatch.setattr(mnist, "CHECKSUMS", checksums)
        bodies |= {f"/good/{name}.gz": gzip.compress(body) for name, body in contents.items()}
        yield f"http://127.0.0.1:{server.server_port}", bodies, asked
        server.shutdown()
        thread.join()


@pytest.mark.skipif(not DATA.exists(), reason="MNIST's files are not at hand")
def test_the_published_files_are_read_and_have_the_known_checksums():
    parts = mnist.load(config(DATA))
    assert (len(parts["train"]), len(parts["heldout"])) == (60_000, 10_000)
    first = parts["train"].read(np.arange(5))
    np.testing.assert_array_equal(first["label"], [5, 0, 4, 1, 9])
    np.testing.assert_array_equal(parts["heldout"].read(np.arange(3))["label"], [7, 2, 1])
    for name, checksum in mnist.CHECKSUMS.items():
        content = gzip.decompress((DATA / f"{name}.gz").read_bytes())
        assert hashlib.md5(content).hexdigest() == checksum


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_files_may_be_gzipped_and_have_dotted_names(tmp_path, gzipped, dotted):
    folder = publish(tmp_path / "m", pack=gzip.compress if gzipped else bytes)
    for file in list(folder.iterdir()):
        name = file.name.replace("-idx", ".idx") if dotted else file.name
        file.rename(folder / (name + ".gz" * gzipped))
    assert_is_digits(mnist.load(config(folder)))


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    publish(tmp_path / "m")
    assert_is_digits(mnist.load(config("~/m")))


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    assert "m is missing: --config.data.path must be the folder with MNIST's" in refusal(
        tmp_path / "m"
    )
    (tmp_path / "m").touch()
    assert "is no folder: give the one with MNIST's four idx files" in refusal(tmp_path / "m")
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe, a socket or a device: --config.data.path must" in refusal(tmp_path / "pipe")


@pytest.mark.parametrize("name", list(mnist.CHECKSUMS))
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path, name):
    folder = publish(tmp_path / "m", **{name.replace("-", "_"): None})
    os.mkfifo(folder / name)
    assert f"{folder / name}[.gz] is missing" in refusal(folder)


@pytest.mark.parametrize("name", list(mnist.CHECKSUMS))
def test_a_missing_file_is_refused(tmp_path, name):
    folder = publish(tmp_path / "m", **{name.replace("-", "_"): None})
    assert f"{folder / name}[.gz] is missing" in refusal(folder)


IMAGES, LABELS = (digits()[f"train-{kind}-ubyte"] for kind in ("images-idx3", "labels-idx1"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images_idx3_ubyte": idx(IMAGES)[:-1]}, "9423 bytes, not 2051 and 9424"),
        ({"train_images_idx3_ubyte": idx(IMAGES) + b"\0"}, "9425 bytes"),
        ({"train_images_idx3_ubyte": idx(IMAGES)[:7]}, "7 bytes"),
        ({"train_images_idx3_ubyte": b""}, "magic 0, 0 bytes"),
        ({"train_images_idx3_ubyte": idx(LABELS)}, "magic 2049, 20 bytes, not 2051"),
        ({"train_images_idx3_ubyte": b"\0\0\x08\3" + b"\xff" * 12}, "16 bytes, not 2051"),
        ({"train_images_idx3_ubyte": gzip.compress(idx(IMAGES))}, "is no idx file or damaged"),
        ({"train_images_idx3_ubyte": idx(IMAGES[:, 1:])}, "images [12, 27, 28], not [N, 28, 28]"),
        ({"train_images_idx3_ubyte": idx(IMAGES[:0])}, "images [0, 28, 28]"),
        ({"train_images_idx3_ubyte": idx(IMAGES[1:])}, "11 images and"),
        ({"train_labels_idx1_ubyte": idx(LABELS[1:])}, "11 labels"),
        ({"train_labels_idx1_ubyte": idx(LABELS + 10)}, "not only 0 to 9"),
        ({"train_labels_idx1_ubyte": idx(IMAGES)}, "magic 2051"),
    ],
)
def test_a_file_with_other_contents_is_refused_by_its_name(tmp_path, change, message):
    folder = publish(tmp_path / "m", **change)
    found = refusal(folder)
    assert message in found
    assert str(folder / next(iter(change)).replace("_", "-")) in found


@pytest.mark.parametrize("kept", [0, 5, 100, -9, -4])
def test_a_truncated_gzip_file_is_refused_by_its_name(tmp_path, kept):
    packed = gzip.compress(idx(IMAGES))[:kept]
    folder = publish(
        tmp_path / "m", rename="{}.gz", pack=gzip.compress, train_images_idx3_ubyte=packed
    )
    assert str(folder / "train-images-idx3-ubyte.gz") in refusal(folder)


@pytest.mark.parametrize("position", [0, 20, 100, -6])
def test_a_damaged_gzip_file_is_refused_by_its_name(tmp_path, position):
    packed = bytearray(gzip.compress(idx(IMAGES)))
    packed[position] ^= 0xFF
    folder = publish(
        tmp_path / "m", rename="{}.gz", pack=gzip.compress, train_images_idx3_ubyte=bytes(packed)
    )
    found = refusal(folder)
    assert str(folder / "train-images-idx3-ubyte.gz") in found
    assert "cannot be read" in found


def test_without_a_path_the_files_are_fetched_once(mirror, cache, monkeypatch):
    address, _, asked = mirror
    monkeypatch.setattr(mnist, "MIRRORS", (f"{address}/good/",))
    assert_is_digits(mnist.load(config()))
    assert sorted(file.name for file in cache.iterdir()) == sorted(mnist.CHECKSUMS)
    assert len(asked) == 4
    assert_is_digits(mnist.load(config()))
    assert len(asked) == 4


def test_a_mirror_that_lacks_a_file_is_followed_by_the_next(mirror, monkeypatch):
    address, _, asked = mirror
    monkeypatch.setattr(mnist, "MIRRORS", (f"{address}/empty/", f"{address}/good/"))
    assert_is_digits(mnist.load(config()))
    assert asked[:2] == [f"/{part}/train-images-idx3-ubyte.gz" for part in ("empty", "good")]


def test_a_body_with_another_checksum_is_refused_and_leaves_nothing(mirror, cache, monkeypatch):
    address, bodies, _ = mirror
    name = "train-images-idx3-ubyte"
    bodies[f"/good/{name}.gz"] = gzip.compress(idx(255 - IMAGES))
    monkeypatch.setattr(mnist, "MIRRORS", (f"{address}/good/",))
    found = refusal()
    assert f", expected {mnist.CHECKSUMS[name]}" in found
    assert "--config.data.path=FOLDER" in found
    assert not list(cache.glob("*"))


@pytest.mark.parametrize("damage", [lambda body: body[:-20], lambda body: b"<html>", lambda _: b""])
def test_a_body_that_is_no_whole_gzip_file_is_refused(mirror, cache, monkeypatch, damage):
    address, bodies, _ = mirror
    path = "/good/train-images-idx3-ubyte.gz"
    bodies[path] = damage(bodies[path])
    monkeypatch.setattr(mnist, "MIRRORS", (f"{address}/good/",))
    assert "--config.data.path=FOLDER" in refusal()
    assert not list(cache.glob("*"))


@pytest.mark.parametrize("name", list(mnist.CHECKSUMS))
def test_a_damaged_file_in_the_cache_is_fetched_again(mirror, cache, monkeypatch, name):
    address, _, asked = mirror
    monkeypatch.setattr(mnist, "MIRRORS", (f"{address}/good/",))
    before = mnist.load(config())["train"].fingerprint()
    content = bytearray((cache / name).read_bytes())
    content[-3] ^= 1
    for damaged in (content, b"", content[:-1]):
        asked.clear()
        (cache / name).write_bytes(damaged)
        parts = mnist.load(config())
        assert_is_digits(parts)
        assert asked == [f"/good/{name}.gz"]
        assert parts["train"].fingerprint() == before


def test_dead_and_silent_mirrors_are_named_in_one_line(cache, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as dead:
        port = dead.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections, and never answers
        mirrors = (f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        monkeypatch.setattr(mnist, "MIRRORS", mirrors)
        found = refusal()
    assert found.startswith("config.data.path is empty and train-images-idx3-ubyte could not be")
    assert "--config.data.path=FOLDER" in found
    assert all(mirror in found for mirror in mirrors)
    assert "Connection refused" in found
    assert "timed out" in found
    assert not list(cache.glob("*"))
