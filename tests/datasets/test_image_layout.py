import contextlib
import io
import os
import random
import socket

import numpy as np
import pytest
from PIL import Image

from configs import beta_vae
from pipeline import datasets
from pipeline.datasets import _image_files, _image_layout, image_folder
from pipeline.runtime import errors
from tests.support.image_folders import config, folder, picture, reds, refusal, zipped


@pytest.fixture(autouse=True)
def fresh():
    image_folder.layout.cache_clear()  # which lasts as long as the process


TRAIN = ["train", "Train", "TRAIN", "training", "Training", "training_set", "train_images", "trn"]
HELD = [
    "val", "Val", "valid", "VALIDATION", "validation", "test", "Test", "testing", "test_set",
    "heldout", "held-out", "Held out", "holdout", "dev", "eval", "Evaluation", "val2017",
    "PublicTest",
]  # fmt: skip


@pytest.mark.parametrize(
    ("train", "held"), [("train", held) for held in HELD] + [(train, "valid") for train in TRAIN]
)
def test_parts_are_recognised_by_their_usual_names_in_any_case(tmp_path, train, held):
    names = [f"{part}/{c}/{n}.png" for part in (train, held) for n in range(2) for c in "ab"]
    parts = image_folder.load(config(folder(tmp_path / "f", names)))
    assert reds(parts["train"]) == [0, 1, 2, 3]
    assert reds(parts["heldout"]) == [4, 5, 6, 7]
    assert image_folder.spec(config(tmp_path / "f"))["label"].class_names == (("a", "b"),)


def test_a_part_that_is_not_used_is_counted_and_named(tmp_path, capsys):
    names = ["train/1.png", "Validation/1.png", "testing/1.png", "testing/2.png"]
    root = folder(tmp_path / "f", names)
    assert reds(image_folder.load(config(root))["heldout"]) == [1]
    assert f"{root}: the 2 images in testing are not read, as" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["test/a/1.png", "test/b/1.png"], "has 'test', which is named like a part, but no folder"),
        (
            ["Validation/1.png", "Test/1.png"],
            "but no folder for train: add it, give what is inside",
        ),
        (["train/1.png", "extra/1.png"], "has 'train', which is named like a part, but no folder"),
        (["bus/1.png", "car/1.png", "train/1.png"], "or rename 'train' if it is a class"),
        (["train/1.png", "Train/2.png", "val/1.png"], "both are named like the same part"),
        (["trainA/1.png", "trainB/2.png", "testA/1.png"], "has 'trainA' and 'trainB'"),
        (["train/1.png", "val/1.png", "valid/1.png"], "has 'val' and 'valid'"),
        (["cat/train/1.png", "cat/val/1.png", "dog/train/1.png"], "f/cat/val is named like a part"),
        (["cat/1.png", "dog/deep/Test/1.png"], "f/dog/deep/Test is named like a part"),
        (["train/train/1.png", "train/val/1.png", "val/train/1.png"], "train/val is named like"),
        (
            ["cats_train/1.png", "cats_val/1.png", "dogs_train/1.png"],
            "'cats_train': name them train",
        ),
        (["train_old2/a/1.png", "valid_v2/a/1.png"], "is named like a part"),
    ],
)
def test_parts_are_never_taken_for_classes(tmp_path, names, message):
    root = folder(tmp_path / "f", names)
    assert message in refusal(root)
    assert "named like" in refusal(zipped(root))


def test_words_that_only_resemble_parts_are_classes(tmp_path):
    names = ["contest/1.png", "freight train/1.png", "strain/1.png", "test tube/1.png"]
    found = image_folder.spec(config(folder(tmp_path / "f", names)))["label"].class_names
    assert found == (("contest", "freight train", "strain", "test tube"),)


def test_a_class_inside_of_parts_may_be_called_train(tmp_path):
    names = [f"{part}/{c}/1.png" for part in ("train", "test") for c in ("bus", "train")]
    parts = image_folder.load(config(folder(tmp_path / "f", names)))
    assert reds(parts["train"]) + reds(parts["heldout"]) == [0, 1, 2, 3]


@pytest.mark.parametrize("around", ["photos/", "a/b/"])
@pytest.mark.parametrize("part", ["", "train/"])
def test_a_folder_around_all_others_is_left_out(tmp_path, around, part):
    names = [f"{around}{part}{c}/1.png" for c in ("cat", "dog")]
    names += [f"{around}val/{c}/1.png" for c in ("cat", "dog")] if part else []
    root = folder(tmp_path / "f", names, **{"__MACOSX/photos/._1.png": b"x"})
    for path in (root, zipped(root)):
        source = image_folder.load(config(path))["train" if part else "all"]
        assert reds(source) == [0, 1]
        assert image_folder.spec(config(path))["label"].class_names == (("cat", "dog"),)
        image_folder.layout.cache_clear()


def test_a_zip_of_a_folder_of_images_is_read(tmp_path):
    folder(tmp_path / "f", ["photos/1.png", "photos/2.png"], **{"__MACOSX/photos/._1.png": b"x"})
    source = image_folder.load(config(zipped(tmp_path / "f")))["all"]
    assert reds(source) == [0, 1]
    assert set(image_folder.spec(config(tmp_path / "f.zip"))) == {"image"}
    assert "has one sub-folder with images, 'photos'" in refusal(tmp_path / "f")


def test_classes_are_in_natural_order(tmp_path):
    root = folder(tmp_path / "f", [f"{n}/1.png" for n in range(12)])
    for path in (root, zipped(root)):
        source = image_folder.load(config(path))["all"]
        assert reds(source) == list(range(12))
        assert source.label.tolist() == list(range(12))
        found = image_folder.spec(config(path))["label"].class_names
        assert found == (tuple(map(str, range(12))),)
        image_folder.layout.cache_clear()


KINDS = {
    "tif": "TIFF", "TIFF": "TIFF", "bmp": "BMP", "jfif": "JPEG", "jpe": "JPEG", "gif": "GIF",
    "ppm": "PPM", "dib": "DIB",
}  # fmt: skip


def test_a_class_of_less_usual_formats_is_read(tmp_path):
    files = {f"b/{n}.{suffix}": picture(n, kind) for n, (suffix, kind) in enumerate(KINDS.items())}
    root = folder(tmp_path / "f", ["a/1.png", "c/1.png"], **files)
    source = image_folder.load(config(root))["all"]
    assert np.bincount(source.label).tolist() == [1, len(KINDS), 1]
    assert image_folder.spec(config(root))["label"].class_names == (("a", "b", "c"),)


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({}, "f/b is a class without images (it is empty)"),
        (
            {"b/1.heic": b"x", "b/2.HEIC": b"x", "b/t.txt": b"x"},
            "f/b is a class without images (only",
        ),
        ({"b/.hidden/1.png": b"x"}, "f/b is a class without images (only hidden folders)"),
    ],
)
def test_a_class_without_images_is_named_and_refused(tmp_path, others, words):
    root = folder(tmp_path / "f", ["a/1.png", "c/1.png"], **others)
    (root / "b").mkdir(exist_ok=True)
    assert words in refusal(root)
    assert "b is a class without images" in refusal(zipped(root))
    root = folder(tmp_path / "p", [f"{part}/{c}/1.png" for part in ("train", "val") for c in "ac"])
    (root / "val" / "b").mkdir()
    assert "p/val/b is a class without images (it is empty)" in refusal(root)


def test_an_empty_part_is_refused(tmp_path):
    root = folder(tmp_path / "f", ["train/1.png", "test/2.png"])
    (root / "val").mkdir()
    assert "f/val has no images" in refusal(root)


def test_a_class_whose_images_are_all_corrupt_is_refused(tmp_path):
    root = folder(tmp_path / "f", ["a/1.png", "c/1.png"], **{"b/1.png": b""})
    assert "every image of the class 'b' is corrupt" in refusal(root, max_corrupt_files=1)


def test_files_that_are_no_images_are_counted_and_named(tmp_path, capsys):
    others = dict.fromkeys(["a/1.heic", "a/2.heic", "notes", "labels.csv", ".trash/1.png"], b"x")
    system = dict.fromkeys([".DS_Store", "a/._1.png", "__MACOSX/a/._1.png", "Thumbs.db"], b"x")
    root = folder(tmp_path / "f", ["a/1.png", "b/1.png"], **others, **system)
    for path in (root, zipped(root)):
        image_folder.load(config(path))
        out = capsys.readouterr().out
        assert f"{path}: 5 files are not read: 2 .heic ('a/1.heic'), 1 .csv ('labels.csv'), " in out
        assert "1 files without a suffix ('notes'), 1 hidden folders ('.trash/')" in out
        image_folder.layout.cache_clear()


def test_names_that_cannot_be_printed_are_escaped(tmp_path, capsys):
    names = [f"{c}/1.png" for c in ("a\nb", os.fsdecode(b"\xff"), "c")]
    root = folder(tmp_path / "f", names)
    source = image_folder.load(config(root))["all"]
    (found,) = image_folder.spec(config(root))["label"].class_names
    assert set(found) == {"a\\nb", "\\udcff", "c"}
    assert all(text.isprintable() for text in source.fingerprint().values())
    (root / "c" / "e\nf.png").write_bytes(b"")
    assert "'c/e\\nf.png'" in refusal(root)
    capsys.readouterr().out.encode()


def test_a_link_to_itself_is_one_corrupt_file(tmp_path):
    root = folder(tmp_path / "f", ["a/1.png", "b/1.png"])
    (root / "a" / "2.png").symlink_to("2.png")
    assert "1 of 3 images" in refusal(root) and "Too many levels" in refusal(root)
    (tmp_path / "loop").symlink_to("loop")
    assert "loop cannot be opened (Too many levels of symbolic links)" in refusal(tmp_path / "loop")


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.zip")
    for path in (tmp_path / "pipe.zip", "/dev/zero", "/dev/stdin"):
        assert "is a pipe, a socket or a device: --config.data.path must be" in refusal(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        assert "is a pipe, a socket or a device" in refusal(tmp_path / "s")
    assert "cannot be shown or used" in refusal("a\nb")
    assert "cannot be shown or used" in refusal("a\0b")
    assert "whom this system does not know" in refusal("~nosuchuser/x")
    assert "cannot be opened (File name too long)" in refusal("x" * 5000)
    assert "f is missing" in refusal(tmp_path / "pipe.zip" / "f")


def test_a_fingerprint_tells_what_changed(tmp_path):
    root = folder(tmp_path / "f", ["cat/1.png", "dog/1.png", "cat/2.png", "dog/2.png"])

    def found():
        image_folder.layout.cache_clear()
        return image_folder.load(config(root))["all"].fingerprint()

    first = found()
    assert first["examples"] == "4" and first["classes"] == "cat, dog"
    assert first["size"] == "8×8×3"

    def differing():
        return {name for name, text in found().items() if first[name] != text}

    os.utime(root / "cat" / "1.png", (1e9, 1e9))
    assert differing() == set()
    assert image_folder.load(config(zipped(root)))["all"].fingerprint() == first
    (root / "cat" / "1.png").write_bytes(picture(50))
    assert differing() == {"pixels"}
    (root / "cat" / "1.png").write_bytes(picture(0))
    assert differing() == set()
    (root / "dog").rename(root / "owl")
    assert differing() == {"classes", "names"}
    (root / "owl").rename(root / "dog")
    (root / "dog" / "2.png").rename(root / "dog" / "3.png")
    assert differing() == {"names"}
    (root / "dog" / "3.png").unlink()
    assert differing() == {"examples", "names", "labels", "pixels"}


def test_what_older_versions_read_otherwise_is_told(tmp_path):
    def told(names):
        image_folder.layout.cache_clear()
        root = folder(tmp_path / str(len(list(tmp_path.iterdir()))), names)
        settings = beta_vae.get_config("image_folder,smoke")
        settings.data.path = str(root)
        return datasets.since_older_versions(settings)

    assert told(["a/1.png", "b/1.png"]) == ""
    assert told(["train/1.png", "val/1.png"]) == ""
    assert "natural order" in told([f"{n}/1.png" for n in range(12)])
    assert "1 images such as '2.bmp' are read" in told(["1.png", "2.bmp"])
    assert "'valid' is a part, and was a class" in told(["train/1.png", "valid/1.png"])


NAMES = ["a", "b", "train", "Val", "test", "10", "2", "__MACOSX", ".x", "\n", "\u732b", "dev", "~"]
NAMES += ["a.png", "...", os.fsdecode(b"\xff")]
ENDINGS = [".png", ".jpg", ".tif", ".gif", ".txt", "", ".PNG", ".pgm"]
LAYOUTS = [("",), ("a/", "b/"), ("train/a/", "train/b/", "Val/a/", "Val/b/"), ("o/a/", "o/\n/")]


def encoded(rng):
    """Returns the bytes of an image of any kind, often damaged, or other bytes."""
    modes = ["RGB", "L", "I;16", "P", "RGBA", "1", "LA", "CMYK", "F"]
    image = Image.new(rng.choice(modes), (rng.randrange(1, 30), rng.randrange(1, 30)))
    file = io.BytesIO()
    try:
        image.save(file, rng.choice(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO"]))
    except (OSError, ValueError, KeyError):
        return rng.randbytes(rng.randrange(300))
    content = bytearray(file.getvalue())
    for _ in range(rng.choice([0, 0, 1, 5, 40])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])


def any_folder(root, rng):
    """Makes a folder, often a layout, with anything beside."""
    root.mkdir()
    for place in rng.choice([*LAYOUTS, ()]):
        folder(root, [f"{place}{n}.png" for n in range(3)])
    for _ in range(rng.choice([0, 1, 2, 8])):
        place = root.joinpath(*(rng.choice(NAMES) for _ in range(rng.choice([0, 1, 1, 2, 3]))))
        path = place / (rng.choice(NAMES) + rng.choice(ENDINGS))
        with contextlib.suppress(OSError):  # a name that is there as another kind
            place.mkdir(parents=True, exist_ok=True)
            match rng.randrange(20):
                case 0:
                    os.mkfifo(path)
                case 1:
                    path.symlink_to(rng.choice([path.name, "..", "/dev/zero", "nowhere"]))
                case 2:
                    path.mkdir()
                case _:
                    path.write_bytes(encoded(rng))


@pytest.mark.filterwarnings("ignore")
def test_any_folder_or_zip_is_read_or_refused_in_one_line(tmp_path):
    rng, read = random.Random(0), 0
    for number in range(150):
        root = tmp_path / f"d{number}"
        any_folder(root, rng)
        path = root
        if rng.random() < 0.3 and not any(file.is_fifo() for file in root.rglob("*")):
            with contextlib.suppress(OSError, UnicodeEncodeError, ValueError):
                path = zipped(root)
        size, resize = rng.choice([(1, 0), (8, 0), (8, 64)])
        given = config(path, image_size=size, resize=resize, channels=rng.choice([1, 3]))
        given.max_corrupt_files = rng.choice([0, 0, 3])
        image_folder.layout.cache_clear()
        try:
            image_folder.spec(given)
            for source in image_folder.load(given).values():
                source.read(np.arange(len(source)))
                source.fingerprint()
            read += 1
        except errors.InputError as error:
            assert not set(str(error)) & set("\n\r\x1b")
    assert 20 < read < 130


class Counted(str):
    """A name that counts how often it is looked at."""

    looks = 0

    def _look(self, what, *args):
        Counted.looks += 1
        return getattr(str, what)(self, *args)

    def startswith(self, *args):
        return self._look("startswith", *args)

    def split(self, *args):
        return self._look("split", *args)

    def removeprefix(self, prefix):
        return Counted(self._look("removeprefix", prefix))

    def __contains__(self, part):
        return self._look("__contains__", part)


def test_a_name_is_looked_at_equally_often_for_few_and_many_classes(monkeypatch, tmp_path):
    looks = []
    for num in (4, 100):  # classes of 400 images
        names = [f"train/c{k % num}/{k}.png" for k in range(400)]
        names += [f"val/c{k % num}/{k}.png" for k in range(400)]
        folders = sorted({name.rpartition("/")[0] for name in names} | {"train", "val"})
        listed = _image_files.Listing([Counted(name) for name in names], [], folders)
        monkeypatch.setattr(_image_files.Folder, "listing", lambda _, listed=listed: listed)
        Counted.looks = 0
        found = _image_layout.read(tmp_path)
        looks.append(Counted.looks)
        assert len(found.classes) == num
        assert found.parts["train"].names[:2] == ["train/c0/0.png", "train/c1/1.png"]
        expected = [f"c{k}" for k in found.parts["train"].label]
        assert [name.split("/")[1] for name in found.parts["train"].names] == expected
        assert len(set(expected[:num])) == num
    assert looks[0] == looks[1] > 0
