import hashlib
import http.server
import io
import os
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from pipeline.datasets import _cifar10_files, cifar10
from pipeline.runtime import errors

JPEGS = Path(__file__).parents[3] / "shared" / "data" / "cifar10_jpeg.zip"
BATCH = 6  # examples of a small batch
NAMES = (*_cifar10_files.PARTS["train"], *_cifar10_files.PARTS["heldout"])


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """Makes batches small and uses no network; returns the cache folder."""
    monkeypatch.setattr(_cifar10_files, "BATCH", BATCH)
    monkeypatch.setattr(cifar10, "ADDRESS", "http://127.0.0.1:9/")
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "vae-pipeline"


def config(path=""):
    return ConfigDict({"path": str(path), "max_corrupt_files": 0})


def batches():
    """Returns {batch: (images [6, 32, 32, 3], labels [6])}."""
    rng = np.random.default_rng(0)
    return {
        name: (rng.integers(0, 256, (BATCH, 32, 32, 3), np.uint8), rng.integers(0, 10, BATCH))
        for name in NAMES
    }


def planes(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def binary(images, labels):
    return np.concatenate([labels[:, None].astype(np.uint8), planes(images)], 1).tobytes()


def contents(**changes):
    """Returns the archive's files; `changes` replace the content of files, None removes one."""
    files = {name: changes.get(name.removesuffix(".bin"), binary(*batch))
             for name, batch in batches().items()}  # fmt: skip
    return {name: content for name, content in files.items() if content is not None}


def unpacked(folder, **changes):
    folder.mkdir(parents=True)
    for name, content in contents(**changes).items():
        (folder / name).write_bytes(content)
    return folder


def archive(path, **changes):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as file:
        for name, content in reversed(contents(**changes).items()):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def refusal(path=""):
    """Returns the one error line that refuses to load."""
    with pytest.raises(errors.InputError) as raised:
        cifar10.load(config(path))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def assert_is_published(parts):
    known = batches()
    for part, names in _cifar10_files.PARTS.items():
        images, labels = (np.concatenate(x) for x in zip(*map(known.get, names), strict=True))
        order = np.arange(len(labels))[::-1]
        assert len(parts[part]) == len(labels)
        batch = parts[part].read(order)
        np.testing.assert_array_equal(batch["image"], images[order])
        np.testing.assert_array_equal(batch["label"], labels[order])
        for name, leaf in cifar10.spec(config()).items():
            assert batch[name].shape == (len(labels), *leaf.shape)
            assert batch[name].dtype == leaf.dtype


def test_the_archive_and_its_folder_are_read_in_the_order_of_the_batches(tmp_path):
    assert_is_published(cifar10.load(config(unpacked(tmp_path / "u"))))
    assert_is_published(cifar10.load(config(archive(tmp_path / "a.tar.gz"))))


def test_a_folder_may_hold_the_archive_or_its_folder(tmp_path):
    unpacked(tmp_path / "one" / "cifar-10-batches-bin")
    assert_is_published(cifar10.load(config(tmp_path / "one")))
    archive(tmp_path / "two" / "cifar-10-binary.tar.gz")
    assert_is_published(cifar10.load(config(tmp_path / "two")))


def test_a_packed_copy_is_mapped_and_made_once(tmp_path, small):
    path = archive(tmp_path / "a.tar.gz")
    cifar10.load(config(path))
    copies = {file: file.stat().st_ino for file in small.glob("*.npy")}
    parts = cifar10.load(config(path))
    assert_is_published(parts)
    assert {file: file.stat().st_ino for file in small.glob("*.npy")} == copies
    assert len(copies) == 2


def test_a_damaged_copy_is_made_anew(tmp_path, small):
    path = archive(tmp_path / "a.tar.gz")
    cifar10.load(config(path))
    for copy in small.glob("*.npy"):
        copy.write_bytes(copy.read_bytes()[:-1])
    assert_is_published(cifar10.load(config(path)))


@pytest.mark.parametrize("suffix", ["-train.npy", "-heldout.npy", "-train.sums", "-heldout.sums"])
def test_flipped_bytes_of_a_copy_are_found_and_repaired(tmp_path, small, suffix):
    path = archive(tmp_path / "a.tar.gz")
    before = {n: part.fingerprint() for n, part in cifar10.load(config(path)).items()}
    (copy,) = small.glob(f"*{suffix}")
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-10] + bytes([255 ^ byte for byte in whole[-10:]]))
    parts = cifar10.load(config(path))
    assert_is_published(parts)
    assert {name: part.fingerprint() for name, part in parts.items()} == before
    assert copy.read_bytes() == whole


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.tar.gz")
    assert "is a pipe, a socket or a device" in refusal(tmp_path / "a.tar.gz")
    os.mkfifo(unpacked(tmp_path / "u", test_batch=None) / "test_batch.bin")
    assert "u has no test_batch.bin" in refusal(tmp_path / "u")
    (tmp_path / "f").mkdir()
    os.mkfifo(tmp_path / "f" / cifar10.ARCHIVE)
    assert "holds no CIFAR-10" in refusal(tmp_path / "f")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_batch_is_refused(tmp_path, name):
    without = {name.removesuffix(".bin"): None}
    assert f"has no {name}" in refusal(archive(tmp_path / "a.tar.gz", **without))


IMAGES, LABELS = batches()["test_batch.bin"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (binary(IMAGES, LABELS)[:-1], "18437 bytes, not 18438"),
        (b"", "0 bytes"),
        (binary(IMAGES, LABELS + 10), "not only 0 to 9"),
        (binary(IMAGES[1:], LABELS[1:]), "15365 bytes"),
    ],
)
def test_a_damaged_binary_batch_is_refused_by_its_name(tmp_path, small, content, message):
    found = refusal(unpacked(tmp_path / "u", test_batch=content))
    assert f"{tmp_path / 'u'}: test_batch.bin is damaged or no batch" in found
    assert message in found
    assert not list(small.glob("*heldout*.npy"))


@pytest.mark.parametrize("given", ["archive", "folder", "folder of a folder", "unknown name"])
def test_the_archive_of_pickles_is_refused_with_what_to_give(tmp_path, given):
    pickles = tmp_path / "cifar-10-batches-py"
    pickles.mkdir()
    for name in NAMES:
        (pickles / name.removesuffix(".bin")).write_bytes(b"(dp1")
    path = {"folder": pickles, "folder of a folder": tmp_path}.get(given)
    if path is None:
        path = tmp_path / ("cifar.tgz" if given == "unknown name" else "cifar-10-python.tar.gz")
        with tarfile.open(path, "w:gz") as file:
            file.add(pickles, "cifar-10-batches-py")
    found = refusal(path)
    assert "python archive, and pickles are not read: give" in found
    assert "cifar-10-binary.tar.gz" in found


@pytest.mark.parametrize("kept", [0, 7, 1000, -9, -4])
def test_a_truncated_archive_is_refused(tmp_path, kept):
    path = archive(tmp_path / "a.tar.gz")
    path.write_bytes(path.read_bytes()[:kept])
    assert "a.tar.gz" in refusal(path)


@pytest.mark.parametrize("position", [0, 5000, -6])
def test_a_flipped_byte_of_an_archive_is_refused(tmp_path, position):
    path = archive(tmp_path / "a.tar.gz")
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)
    assert "a.tar.gz" in refusal(path)


def test_a_path_without_cifar10_is_refused(tmp_path):
    assert "none is missing: --config.data.path must be" in refusal(tmp_path / "none")
    assert f"{tmp_path} holds no CIFAR-10: --config.data.path must be" in refusal(tmp_path)


def tree(path, *, num=3, size=(32, 32), suffix="png", classes=cifar10.CLASSES):
    """Makes a zip of images; the grey of each encodes its split, class and number."""
    with zipfile.ZipFile(path, "w") as file:
        for part, name, n in np.ndindex(2, len(classes), num):
            picture = io.BytesIO()
            Image.new("RGB", size, (part, name, n)).save(picture, suffix)
            member = f"{('test', 'train')[part]}/{classes[name]}/{n + 8}.{suffix}"
            file.writestr(member, picture.getvalue())
    return path


def test_a_tree_of_images_is_ordered_by_number_and_then_by_class(tmp_path):
    path = tree(tmp_path / "c.zip")
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path / "c")
    for given in (path, tmp_path / "c"):
        parts = cifar10.load(config(given))
        for number, part in enumerate(("heldout", "train")):
            assert len(parts[part]) == 30
            batch = parts[part].read(np.arange(30))
            np.testing.assert_array_equal(batch["label"], np.tile(np.arange(10), 3))
            expected = [(number, label, n) for n in range(3) for label in range(10)]
            np.testing.assert_array_equal(batch["image"][:, 16, 16], expected)


def test_a_tree_of_another_data_set_is_refused(tmp_path):
    found = refusal(tree(tmp_path / "c.zip", classes=("cat", "dog")))
    assert "is no CIFAR-10" in found
    assert "image_folder" in found


def test_images_of_another_size_are_refused(tmp_path):
    found = refusal(tree(tmp_path / "c.zip", size=(64, 32)))
    assert "60 of 60 images" in found
    assert "(64×32 pixels, not 32×32)" in found


@pytest.mark.skipif(not JPEGS.exists(), reason="the JPEG copy of CIFAR-10 is not at hand")
def test_the_jpeg_copy_is_read_in_its_order(tmp_path):
    # Only the first images of each class, because decoding all 60,000 takes half a minute.
    few = {"train": 20, "test": 10}
    with zipfile.ZipFile(JPEGS) as whole, zipfile.ZipFile(tmp_path / "few.zip", "w") as part:
        for folder, num in few.items():
            for name in cifar10.CLASSES:
                for n in range(num):
                    member = f"{folder}/{name}/{n:04d}.jpg"
                    part.writestr(member, whole.read(member))
    parts = cifar10.load(config(tmp_path / "few.zip"))
    for part, folder in (("train", "train"), ("heldout", "test")):
        num = 10 * few[folder]
        assert len(parts[part]) == num
        np.testing.assert_array_equal(parts[part].label, np.arange(num) % 10)
        for index in (0, 7, num - 1):
            n, label = divmod(index, 10)
            member = f"{folder}/{cifar10.CLASSES[label]}/{n:04d}.jpg"
            with zipfile.ZipFile(JPEGS) as file, file.open(member) as jpeg:
                expected = np.asarray(Image.open(jpeg))
            image = parts[part].read(np.array([index]))["image"][0]
            np.testing.assert_array_equal(image, expected)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Starts a server on this machine; yields the body that it sends, and its count of requests."""
    state = {"body": archive(tmp_path / "a.tar.gz").read_bytes(), "asked": 0}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state["asked"] += 1
            self.send_response(200 if state["body"] else 404)
            self.send_header("Content-Length", str(len(state["body"])))
            self.end_headers()
            self.wfile.write(state["body"])

        def log_message(self, *args):
            pass

    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(state["body"]).hexdigest())
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        address = f"http://127.0.0.1:{running.server_port}/a.tar.gz"
        monkeypatch.setattr(cifar10, "ADDRESS", address)
        yield state
        running.shutdown()
        thread.join()


def test_without_a_path_the_archive_is_fetched_once(server, small):
    assert_is_published(cifar10.load(config()))
    assert_is_published(cifar10.load(config()))
    assert server["asked"] == 1
    assert (small / "cifar-10-binary.tar.gz").read_bytes() == server["body"]


def test_a_damaged_archive_in_the_cache_is_fetched_again(server, small):
    cifar10.load(config())
    content = bytearray(server["body"])
    content[len(content) // 2] ^= 1
    (small / cifar10.ARCHIVE).write_bytes(content)
    assert_is_published(cifar10.load(config()))
    assert server["asked"] == 2


@pytest.mark.parametrize("change", [lambda body: body[:-1], lambda body: b"<html>", lambda _: b""])
def test_an_answer_that_is_not_the_archive_is_refused_and_leaves_nothing(server, small, change):
    server["body"] = change(server["body"])
    found = refusal()
    assert found.startswith("config.data.path is empty and http://127.0.0.1")
    assert "--config.data.path=FILE" in found
    assert not [file for file in small.iterdir() if file.suffix != ".lock"]


def test_where_there_is_no_network_the_line_says_what_to_give(small):
    found = refusal()
    assert "Connection refused" in found
    assert "--config.data.path=FILE, cifar-10-binary.tar.gz" in found
    assert not (small / "cifar-10-binary.tar.gz").exists()
