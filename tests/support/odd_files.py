"""Files as no user means them: damaged, of another kind, or with odd names. A seed draws them."""

import contextlib
import gzip
import io
import json
import os
import pickle
import shutil
import zipfile

import numpy as np
from PIL import Image

from pipeline import prepare

NAMES = {
    "mnist": (
        *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    ),
    "cifar10": (
        *(f"data_batch_{number}" for number in range(1, 6)),
        *("test_batch", "batches.meta", "data_batch_1.bin", "cifar-10-python.tar.gz"),
    ),
    "dsprites": ("dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz",),
    "arrays": ("image.npy", "label.npy"),
}
PARTS = (
    *(("",), ("a", "b"), ("0", "10"), ("train/a", "val/a"), ("train", "test"), ("Train", "VAL")),
    *(("train/a", "train/b", "valid/a"), ("a/b/c", "a")),
)
MODES = ("RGB", "RGB", "L", "RGBA", "P", "1", "I;16", "LA", "CMYK")
SUFFIXES = ("png", "png", "jpg", "webp", "bmp", "tif", "gif")
SIZES = ((8, 8), (8, 8), (1, 1), (9, 30), (0, 8))
ODD_VALUES = (None, -1, 0, 1, 2.5, "x", "", [], [1], ["a"], {}, True, 1e308, 10**30)


def mutated(draw, content):
    """Returns damaged bytes: flipped, cut, zeroed, empty, doubled or random ones."""
    place = draw.randrange(len(content)) if content else 0
    match draw.randrange(6):
        case 0:
            flipped = bytearray(content)
            for _ in range(draw.choice((1, 1, 8)) if content else 0):
                flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            return bytes(flipped)
        case 1:
            return content[:place]
        case 2:
            return content[:place] + bytes(len(content[place : place + 64])) + content[place + 64 :]
        case 3:
            return b""
        case 4:
            return content + content
        case _:
            return draw.randbytes(draw.choice((1, 7, 100, 3000)))


def arrays(draw, folder):
    """Makes an npy or npz file that is damaged or odd; returns its path."""
    shape = draw.choice(((4, 8, 8), (4, 8, 8, 3), (4, 6, 8, 1), (0, 8, 8), (4, 8), (4, 8, 8, 2)))
    dtype = draw.choice((np.uint8, np.uint8, np.uint8, bool, np.int32, np.float32, object))
    images = np.zeros(shape, dtype)
    if draw.random() < 0.3:
        path = folder / "a.npy"
        np.save(path, images)
    else:
        path = folder / "a.npz"
        labels = np.array(draw.choice((*ODD_VALUES, [0, 1, 2, 1])), None)
        names = draw.choice((("images", "labels"), ("x_train", "y_train"), ("a", "b")))
        np.savez(path, **dict(zip(names, (images, labels), strict=True)))
    if draw.random() < 0.5:
        path.write_bytes(mutated(draw, path.read_bytes()))
    return path


def prepared(draw, folder):
    """Makes a prepared data set of which a file is damaged or missing."""
    pictures = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    folder.mkdir()
    np.savez(folder.with_suffix(".npz"), images=pictures, labels=np.arange(6) % 2)
    flags = [f"--source={folder.with_suffix('.npz')}", f"--out={folder}", "--per_shard=2"]
    kind = draw.choice(("pixels", "jpeg"))
    prepare.run(prepare.parse(["prepare", *flags, f"--encoding={kind}", "--processes=1"]))
    path = draw.choice(sorted(folder.iterdir()))
    if draw.random() < 0.1:
        path.unlink()
    elif path.suffix == ".json" and draw.random() < 0.7:
        said = json.loads(path.read_text())
        said[draw.choice(sorted(said))] = draw.choice(ODD_VALUES)
        path.write_text(json.dumps(said))
    else:
        path.write_bytes(mutated(draw, path.read_bytes()))


def images(draw, folder):
    """Makes a folder or a zip of images and of what is none; returns its path."""
    data = folder / draw.choice(("data", "däta", "a b", "data.zip.d"))
    parts = draw.choice(PARTS)
    for part in parts:
        (data / part).mkdir(parents=True, exist_ok=True)
        for number in range(draw.choice((0, 1, 8, 80))):
            path = data / part / f"{number}.{draw.choice(SUFFIXES)}"
            with contextlib.suppress(Exception):  # the format lacks the mode or the size
                Image.new(draw.choice(MODES), draw.choice(SIZES)).save(path)
    for _ in range(draw.choice((0, 1, 3))):
        with contextlib.suppress(OSError):
            _add_odd_file(draw, data / draw.choice(parts))
    if draw.random() < 0.8:
        return data
    path = folder / "data.zip"
    with contextlib.suppress(OSError, ValueError), zipfile.ZipFile(path, "w") as archive:
        for file in sorted(data.rglob("*")):
            if file.is_file():
                archive.write(file, str(file.relative_to(data)))
    if draw.random() < 0.5:
        path.write_bytes(mutated(draw, path.read_bytes()))
    return path


def _add_odd_file(draw, place):
    path = place / draw.choice(("x.png", "x.jpg", ".png", "x.txt", "\udcff.png", "a\nb.png"))
    found = sorted(path for path in place.iterdir() if path.is_file())
    if os.path.lexists(path):  # perhaps as a pipe, which would wait for a reader
        return
    match draw.randrange(8):
        case 0 if found:
            chosen = draw.choice(found)
            chosen.write_bytes(mutated(draw, chosen.read_bytes()))
        case 1:
            path.write_bytes(draw.randbytes(50))
        case 2:
            path.mkdir()
        case 3:
            path.symlink_to(draw.choice((path, "nowhere", "/", "..")))
        case 4:
            os.mkfifo(path)
        case 5:
            place.chmod(draw.choice((0o000, 0o400)))
        case 6:
            (place / "empty").mkdir()
        case 7:
            path.write_bytes(b"")


def data_set(draw, name, folder):
    """Makes a folder with the files of a data set, and returns the path of the first one."""
    folder.mkdir()
    for file in NAMES[name]:
        path, content = folder / file, _content(draw, name)
        kind = draw.random()
        if kind < 0.05:
            os.mkfifo(path)
        elif kind < 0.1:
            path.mkdir()
        elif kind < 0.4 and name == "mnist":
            path.with_name(f"{file}.gz").write_bytes(gzip.compress(content))
        else:
            path.write_bytes(content)
    return folder / NAMES[name][0]


def _content(draw, name):
    images = b"\x00\x00\x08\x03" + b"\x00\x00\x00\x02" + 2 * b"\x00\x00\x00\x1c" + bytes(1568)
    match draw.randrange(4):
        case 0:
            return draw.randbytes(100)
        case 1:
            return mutated(draw, images)
        case 2:
            odd = ({}, [1], {b"data": 3}, {b"data": b"x", b"labels": []}, None, {b"data": [[1]]})
            return pickle.dumps(draw.choice(odd))
        case _ if name == "arrays":
            made, shape = (
                io.BytesIO(),
                draw.choice(((9, 8, 8, 1), (9, 8, 8), (9,), (), (0, 8, 8, 1))),
            )
            kind = draw.choice(("u1", "u1", ">u2", "f2", "f4", "f8", "i8", "?", "O", "U3", "M8[s]"))
            made_of = draw.choice((np.save, np.save, np.savez))
            made_of(made, np.zeros(shape, kind))
            return draw.choice((made.getvalue(), mutated(draw, made.getvalue())))
        case _ if name == "dsprites":
            made = io.BytesIO()
            np.savez(made, imgs=np.zeros((2, 64, 64), np.uint8), latents_classes=np.zeros(3))
            return draw.choice((made.getvalue(), mutated(draw, made.getvalue())))
        case _:
            return images


def damaged_run(draw, folder, run):
    """Copies a run, damages one of its files or a value of its config, and returns the copy."""
    copy = folder / draw.choice(("run", "run[1]", "r n", "r\udcffn"))
    shutil.copytree(run, copy)
    path = copy / "config.json"
    if draw.random() < 0.5:
        saved = json.loads(path.read_text())
        saved[draw.choice(sorted(saved))] = draw.choice(ODD_VALUES)
        if draw.random() < 0.3:
            del saved[draw.choice(sorted(saved))]
        path.write_text(json.dumps(saved))
        return copy
    path = draw.choice(sorted(path for path in copy.rglob("*") if path.is_file()))
    content = path.read_bytes()
    path.unlink()
    match draw.randrange(4):
        case 0:
            path.mkdir()
        case 1:
            path.symlink_to(path)
        case 2:
            path.write_bytes(mutated(draw, content))
    return copy
