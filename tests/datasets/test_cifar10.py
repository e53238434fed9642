import hashlib
import http.server
import io
import pickle
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import ClassVar

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
    """Small batches; no test leaves this machine; returns the cache folder."""
    monkeypatch.setattr(_cifar10_files, "BATCH", BATCH)
    monkeypatch.setattr(cifar10, "ADDRESS", "http://127.0.0.1:9/")
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "vae-pipeline"


def config(path=""):
    return ConfigDict({"path": str(path), "max_corrupt_files": 0})


def batches():
    """Images [6, 32, 32, 3] and labels [6] by the name of their batch."""
    rng = np.random.default_rng(0)
    return {
        name: (rng.integers(0, 256, (BATCH, 32, 32, 3), np.uint8), rng.integers(0, 10, BATCH))
        for name in NAMES
    }


def planes(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def binary(images, labels):
    return np.concatenate([labels[:, None].astype(np.uint8), planes(images)], 1).tobytes()


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, and NumPy's names as they then were."""

    def save_string(self, value):
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch: ClassVar = pickle._Pickler.dispatch | {bytes: save_string}


def pickled(images, labels, /, **changes):
    batch = {
        b"batch_label": b"a batch",
        b"labels": [int(label) for label in labels],
        b"data": planes(images),
        b"filenames": [b"%d.png" % n for n in range(len(labels))],
    } | {name.encode(): value for name, value in changes.items()}
    file = io.BytesIO()
    Python2Pickler(file, 2).dump({key: value for key, value in batch.items() if value is not None})
    return file.getvalue().replace(b"numpy._core.", b"numpy.core.")


FORMS = {"bin": (".bin", binary), "py": ("", pickled)}


def contents(form, **changes):
    """The files of one published form; a change is the content of one, None for no file."""
    suffix, pack = FORMS[form]
    files = {name: changes.get(name, pack(*batch)) for name, batch in batches().items()}
    return {name + suffix: content for name, content in files.items() if content is not None}


def unpacked(folder, form="bin", **changes):
    folder.mkdir(parents=True)
    for name, content in contents(form, **changes).items():
        (folder / name).write_bytes(content)
    return folder


def archive(path, form="bin", **changes):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as file:
        for name, content in reversed(contents(form, **changes).items()):
            info = tarfile.TarInfo(f"cifar-10-batches-{form}/{name}")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def refusal(path=""):
    """The one line with which loading is refused."""
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


@pytest.mark.parametrize("form", FORMS)
def test_the_published_forms_are_read_in_the_order_of_the_batches(tmp_path, form):
    assert_is_published(cifar10.load(config(unpacked(tmp_path / "u", form))))
    assert_is_published(cifar10.load(config(archive(tmp_path / "a.tar.gz", form))))


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_may_hold_the_archive_or_its_folder(tmp_path, form):
    unpacked(tmp_path / "one" / f"cifar-10-batches-{form}", form)
    assert_is_published(cifar10.load(config(tmp_path / "one")))
    name = {"bin": "binary", "py": "python"}[form]
    archive(tmp_path / "two" / f"cifar-10-{name}.tar.gz", form)
    assert_is_published(cifar10.load(config(tmp_path / "two")))


def test_a_packed_copy_is_mapped_and_made_once(tmp_path, small):
    path = archive(tmp_path / "a.tar.gz")
    cifar10.load(config(path))
    copies = {file: file.stat().st_ino for file in small.glob("*.npy")}
    parts = cifar10.load(config(path))
    assert_is_published(parts)
    pixels = parts["train"].pixels
    assert isinstance(pixels, np.memmap)
    assert not pixels.flags.owndata  # a view of the map, not a copy
    assert {file: file.stat().st_ino for file in small.glob("*.npy")} == copies
    assert len(copies) == 2


def test_a_damaged_copy_is_made_anew(tmp_path, small):
    path = archive(tmp_path / "a.tar.gz")
    cifar10.load(config(path))
    for copy in small.glob("*.npy"):
        copy.write_bytes(copy.read_bytes()[:-1])
    assert_is_published(cifar10.load(config(path)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_a_missing_batch_is_refused(tmp_path, form, name):
    assert f"has no {name}" in refusal(archive(tmp_path / "a.tar.gz", form, **{name: None}))


IMAGES, LABELS = batches()["test_batch"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (binary(IMAGES, LABELS)[:-1], "18437 bytes, where 18438 are due"),
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickled(IMAGES, LABELS)[:-100], "test_batch is damaged"),
        (b"", "test_batch is damaged"),
        (pickled(IMAGES, LABELS, data=None), "b'data'"),
        (pickled(IMAGES, LABELS, data=b"pixels"), "no attribute 'state'"),
        (pickled(IMAGES, LABELS, data=planes(IMAGES).astype(np.int64)), "data that are no bytes"),
        (pickled(IMAGES[1:], LABELS), "data that are no bytes [6, 3072]"),
        (pickled(IMAGES, LABELS, data=np.asfortranarray(planes(IMAGES))), "data that are no bytes"),
        (pickled(IMAGES, LABELS[1:]), "5 labels, where 6 are due"),
        (pickled(IMAGES, LABELS - 10), "not only 0 to 9"),
        (pickled(IMAGES, LABELS, labels=[[]] * 6), "int()"),
        (pickle.dumps([1, 2]), "test_batch is damaged"),
    ],
)
def test_a_damaged_python_batch_is_refused_by_its_name(tmp_path, content, message):
    found = refusal(unpacked(tmp_path / "u", "py", test_batch=content))
    assert f"{tmp_path / 'u'}: test_batch is damaged or no batch of CIFAR-10" in found
    assert message in found


class Call:
    """Unpickling it calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, protocol):
    mark = tmp_path / "ran"
    hostile = Call(exec, f"open({str(mark)!r}, 'w').close()")
    content = pickle.dumps(hostile, protocol)
    found = refusal(unpacked(tmp_path / "u", "py", test_batch=content))
    assert "exec, which is not run" in found
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()  # it would have


@pytest.mark.parametrize(
    "name", ["numpy\nload", "numpy\nndarray.tofile", "numpy.core.multiarray\nfromfile",
             "os\nsystem", "pipeline.datasets._cifar10_files\nload"],
)  # fmt: skip
def test_only_the_names_of_arrays_are_known_to_the_unpickler(tmp_path, name):
    found = refusal(unpacked(tmp_path / "u", "py", test_batch=f"c{name}\n.".encode()))
    assert f"asks for {name.replace(chr(10), '.')}, which is not run" in found


def test_known_names_do_nothing_of_their_own(tmp_path):
    # numpy.ndarray((10**15,)) would ask for a petabyte.
    content = b"cnumpy\nndarray\n(I1000000000000000\ntR."
    assert "no batch of CIFAR-10" in refusal(unpacked(tmp_path / "u", "py", test_batch=content))


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
    assert "is missing: there should be CIFAR-10" in refusal(tmp_path / "none")
    assert f"{tmp_path} holds no CIFAR-10: --config.data.path must be" in refusal(tmp_path)


def tree(path, *, num=3, size=(32, 32), suffix="png", classes=cifar10.CLASSES):
    """A zip of images, each of one grey that tells its part, class and number."""
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
    # The first images of each class: to decode all 60,000 takes half a minute.
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
    """A server on this machine: the body it sends, and how often it was asked."""
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
