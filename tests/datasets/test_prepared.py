"""Shards: the same bytes however they are made, the batches of image_folder, and every damage."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from pipeline import datasets
from pipeline.datasets import _image_decoder, image_folder, prepared
from pipeline.datasets.shards import claims, copying, encoding, making, manifest, plan
from pipeline.datasets.shards.sources import choosing
from pipeline.runtime import errors, files
from pipeline.runtime.workdir import liveness
from tests.support import image_folders, prepared_data
from tests.support.processes import ROOT

SIDE = 8


@pytest.fixture
def photos(tmp_path):
    """A folder of 12 JPEGs and PNGs of several sizes, in two classes."""
    draw = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i}.{('jpg', 'png')[i // 6]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (SIDE, SIDE, 3) if i % 3 else (SIDE + i, 2 * SIDE, 3)
        Image.fromarray(draw.integers(0, 256, size, np.uint8)).save(path)
    return tmp_path / "photos"


def make(photos, out, *flags, processes=1):
    return prepared_data.make(photos, out, f"--image_size={SIDE}", *flags, processes=processes)


def refusal(run, *arguments, **changes):
    with pytest.raises(errors.InputError) as raised:
        run(*arguments, **changes)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def of_folder(photos, **changes):
    image_folder.layout.cache_clear()
    return image_folder.load(image_folders.config(photos, image_size=SIDE, **changes))


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("kind", ["pixels", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_batches_of_a_seed_are_those_of_image_folder(tmp_path, photos, kind, channels):
    flags = f"--encoding={kind}", f"--channels={channels}", "--resize=10", "--per_shard=5"
    make(photos, tmp_path / "out", *flags)
    image_folder.layout.cache_clear()
    both = []
    for name, path in (("image_folder", photos), ("prepared", tmp_path / "out")):
        data = prepared_data.config(path, name=name, heldout_examples=3, train_examples=8)
        data.update(
            image_size=SIDE, resize=10, channels=channels, max_corrupt_files=0, binarize=False
        )
        data["seed"] = -1  # that of the run
        config = ConfigDict({"data": data, "seed": 7, "batch_size": 2})
        both.append((datasets.example_spec(config), datasets.load(config)))
    (spec, splits), (same_spec, same) = both
    assert spec == same_spec and spec["label"].class_names == (("cat", "dog"),)
    for part, same_part in zip(splits, same, strict=True):
        shuffled = np.array([*reversed(range(len(part))), 0])
        assert_equal(same_part.read(shuffled), part.read(shuffled))


def test_a_jpeg_that_is_only_cut_keeps_its_bytes_and_pixels(tmp_path, photos):
    make(photos, tmp_path / "out", "--encoding=jpeg")
    found = prepared_data.everything(prepared_data.load(tmp_path / "out")["all"])
    expected = prepared_data.everything(of_folder(photos)["all"])
    np.testing.assert_array_equal(found["label"], expected["label"])
    names = image_folder.layout(str(photos)).parts["all"].names
    same = [np.array_equal(a, b) for a, b in zip(found["image"], expected["image"], strict=True)]
    kept = [int(name[4:].split(".")[0]) in (0, 1, 2, 4, 5) for name in names]
    assert kept == same
    to = _image_decoder.Format(SIDE, SIDE, 3)
    whole = (photos / names[kept.index(True)]).read_bytes()
    assert encoding.encoded(whole, to, "jpeg") is whole


def test_other_images_become_jpegs_close_to_their_pixels():
    pixels = np.broadcast_to(np.arange(0, 256, 4, np.uint8)[:, None, None], (64, 64, 3))
    to = _image_decoder.Format(64, 64, 3)
    again = _image_decoder.decode(encoding.encoded(pixels, to, "jpeg"), to)
    assert abs(again.astype(int) - pixels).max() <= 2


@pytest.mark.parametrize("kind", ["pixels", "jpeg"])
def test_the_bytes_are_the_same_however_many_processes_make_them(tmp_path, photos, kind):
    flags = "--shards=5", f"--encoding={kind}"
    for processes in (1, 3):
        make(photos, tmp_path / str(processes), *flags, processes=processes)
    found = prepared_data.digests(tmp_path / "1")
    assert found == prepared_data.digests(tmp_path / "3")
    assert len([name for name in found if name.startswith("all-0")]) == 4
    assert manifest.NAME in found and plan.UNFINISHED not in found


def planned(photos, **asked):
    source = choosing.opened(str(photos))
    return source, plan.make(source, plan.Asked((SIDE, SIDE), **asked))


def test_work_that_was_left_at_any_shard_goes_on(tmp_path, photos):
    make(photos, tmp_path / "whole", "--per_shard=2")
    source, asked = planned(photos, per_shard=2)
    left = tmp_path / "left"
    plan.agree(left, asked)
    for shard in asked.shards[1:5:2]:
        making.make(source, asked, left, shard)
    (left / asked.shards[0].file).write_bytes(b"half of it")  # there is no record of it
    made = []

    class Note(type(source)):
        def rows(self, part, first, stop):
            made.append(first)
            return super().rows(part, first, stop)

    making.work(Note(*source), asked, left)
    assert made == [0, 4, 8, 10]
    make(photos, left, "--per_shard=2")
    assert prepared_data.digests(left) == prepared_data.digests(tmp_path / "whole")


COMMAND = [sys.executable, "-m", "pipeline.prepare"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_was_killed_is_finished_by_the_same_command(
    tmp_path, number, signals_of_terminals
):
    draw, root = np.random.default_rng(0), tmp_path / "photos"
    root.mkdir()
    pixels = Image.fromarray(draw.integers(0, 256, (64, 64, 3), np.uint8))
    pixels.save(root / "0.png")
    for i in range(1, 3000):
        os.link(root / "0.png", root / f"{i}.png")
    out = tmp_path / "out"
    flags = [f"--source={root}", f"--out={out}", "--per_shard=30", "--processes=2"]
    process = subprocess.Popen([*COMMAND, *flags], cwd=ROOT, stderr=subprocess.PIPE)
    records = out / plan.UNFINISHED
    while len([*records.glob("*.npy.json")]) < 2:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    process.communicate()
    assert process.returncode
    time.sleep(0.3)  # the other processes note that the first one has ended
    before = {path.name: path.stat().st_mtime_ns for path in records.iterdir()}
    assert 2 <= len([name for name in before if name.endswith(".json")]) < 101
    time.sleep(0.3)
    assert before == {path.name: path.stat().st_mtime_ns for path in records.iterdir()}
    subprocess.run([*COMMAND, *flags], cwd=ROOT, check=True, timeout=60)
    assert {path.suffix for path in out.iterdir()} == {".npy", ".json"}  # nothing half written
    first = manifest.read(out).parts["all"].shards[0]
    assert manifest.digest((out / first.file).read_bytes()) == first.digest
    assert len(prepared_data.load(out)["all"]) == 3000


def test_a_shard_that_another_host_has_finished_meanwhile_is_no_fault(
    tmp_path, photos, monkeypatch
):
    out, (source, asked) = tmp_path / "out", planned(photos)
    plan.agree(out, asked)
    write = files.write

    def finished(path, content):
        monkeypatch.setattr(files, "write", write)
        make(photos, out)  # as another host, which then removes what is half written
        raise FileNotFoundError(path)

    monkeypatch.setattr(claims.Claims, "take", lambda *arguments: True)
    monkeypatch.setattr(files, "write", finished)
    making.work(source, asked, out)
    make(photos, tmp_path / "one")
    assert prepared_data.digests(out) == prepared_data.digests(tmp_path / "one")


def test_two_commands_at_once_share_the_shards(tmp_path, photos):
    out = tmp_path / "out"
    command = [*COMMAND, f"--source={photos}", f"--out={out}", f"--image_size={SIDE}"]
    command += ["--per_shard=1", "--processes=1"]
    both = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    make(photos, tmp_path / "one", "--per_shard=1")
    assert prepared_data.digests(out) == prepared_data.digests(tmp_path / "one")


class Elsewhere(liveness.Machine):
    """A machine that cannot tell whether others live."""

    def identity(self):
        return {"host": "elsewhere", "pid": 1}


def test_a_claim_belongs_to_one_process_until_it_is_left_behind(tmp_path, monkeypatch):
    here, other = claims.Claims(tmp_path), claims.Claims(tmp_path, Elsewhere())
    assert here.take("a", set()) and other.take("b", set())
    assert not here.take("b", set())  # listed before the other one claimed it
    names = set(os.listdir(tmp_path))
    assert not here.take("a", names) and not here.take("b", names)
    monkeypatch.setattr(claims, "PATIENCE_SECONDS", -1.0)
    assert not other.take("a", names)  # its process lives
    assert here.take("b", names)  # elsewhere nobody answers
    assert not here.take("b", names)  # someone else came first


def test_a_claim_of_a_dead_process_is_taken_at_once(tmp_path):
    program = (
        "import sys, pathlib\nfrom pipeline.datasets.shards import claims\n"
        "assert claims.Claims(pathlib.Path(sys.argv[1])).take('a', set())\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, check=True)
    names = set(os.listdir(tmp_path))
    assert claims.Claims(tmp_path).take("a", names)
    assert not claims.Claims(tmp_path).take("a", set(os.listdir(tmp_path)))


def test_other_data_or_flags_are_refused_and_the_same_command_does_nothing(tmp_path, photos):
    out = tmp_path / "out"
    make(photos, out)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert "all was there" in make(photos, out)
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert "with other flags" in refusal(make, photos, out, "--channels=1")
    shutil.rmtree(out)
    plan.agree(out, planned(photos)[1])
    assert "encoding pixels, not png" in refusal(make, photos, out, "--encoding=png")
    (photos / "cat" / "99.png").write_bytes(image_folders.picture())
    assert "was begun with other images" in refusal(make, photos, out)
    assert "holds other files" in refusal(make, photos, photos)
    (out / plan.UNFINISHED / plan.NAME).write_text("{")
    assert "is damaged: remove" in refusal(make, photos, out)


def test_corrupt_images_are_named_once_and_left_out(tmp_path, photos, capsys):
    (photos / "dog" / "5.jpg").write_bytes(b"no image")
    out = tmp_path / "out"
    text = refusal(make, photos, out, "--per_shard=4")
    assert "1 of 12 images cannot be decoded: 'dog/5.jpg' (8 bytes that are no PNG" in text
    assert "--max_corrupt_files=1 (now 0)" in text
    make(photos, out, "--per_shard=4", "--max_corrupt_files=1")
    assert "they are left out" in capsys.readouterr().out
    expected = of_folder(photos, max_corrupt_files=1)["all"]
    found = prepared_data.load(out)["all"]
    assert_equal(prepared_data.everything(found), prepared_data.everything(expected))
    ((row, (name, _)),) = manifest.read(out).parts["all"].corrupt.items()
    assert image_folder.layout(str(photos)).parts["all"].names[row] == name == "dog/5.jpg"


def test_a_repaired_image_is_read_again(tmp_path, photos):
    good = (photos / "dog" / "5.jpg").read_bytes()
    (photos / "dog" / "5.jpg").write_bytes(b"no image")
    refusal(make, photos, tmp_path / "out", "--per_shard=4")
    (photos / "dog" / "5.jpg").write_bytes(good)
    make(photos, tmp_path / "out", "--per_shard=4")
    make(photos, tmp_path / "fresh", "--per_shard=4")
    assert prepared_data.digests(tmp_path / "out") == prepared_data.digests(tmp_path / "fresh")


def test_an_image_of_too_many_pixels_is_corrupt(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for kind in ("pixels", "jpeg"):
        text = refusal(make, photos, tmp_path / kind, f"--encoding={kind}", "--channels=1")
        assert "of 12 images cannot be decoded" in text and "exceeds limit" in text


def test_a_class_or_part_without_whole_images_is_refused(tmp_path, photos):
    for path in (photos / "dog").iterdir():
        path.write_bytes(b"no image")
    most = "--max_corrupt_files=12"
    assert "every image of the class 'dog'" in refusal(make, photos, tmp_path / "out", most)
    for path in (photos / "cat").iterdir():
        path.write_bytes(b"no image")
    assert "every image of the part 'all'" in refusal(make, photos, tmp_path / "out", most)


@pytest.fixture(params=["pixels", "jpeg"])
def shards(request, tmp_path, photos):
    """A prepared data set, each of whose shards has two images."""
    make(photos, tmp_path / "out", "--per_shard=2", f"--encoding={request.param}")
    return tmp_path / "out"


def flip(path, position=-20):
    content = bytearray(path.read_bytes())
    if path.suffix == ".array_record":
        position = content.rindex(b"\xff\xd8") + 100  # in a JPEG; the end of the file is padding
    content[position] ^= 255
    path.write_bytes(content)


def shard(folder, number=3):
    return folder / manifest.read(folder).parts["all"].shards[number].file


def read_all(folder, **changes):
    return prepared_data.everything(prepared_data.load(folder, **changes)["all"])


def test_a_missing_or_altered_shard_is_named_in_one_line(shards, photos):
    path, whole = shard(shards), prepared_data.digests(shards)
    flip(path)
    for changes in ({}, {"copy": "always"}):
        assert f"{path} is damaged or was altered" in refusal(read_all, shards, **changes)
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path} is damaged or was altered" in refusal(prepared_data.load, shards)
    path.unlink()
    assert f"{path} is missing" in refusal(prepared_data.load, shards)
    # The line says that the same command makes it again.
    kind = manifest.read(shards).encoding
    assert "1 shards were missing" in make(photos, shards, "--per_shard=2", f"--encoding={kind}")
    assert prepared_data.digests(shards) == whole


def test_a_missing_shard_of_changed_images_is_refused(shards, photos):
    shard(shards).unlink()
    for path in photos.glob("*/*"):
        path.write_bytes(image_folders.picture(99))
    kind = manifest.read(shards).encoding
    flags = "--per_shard=2", f"--encoding={kind}"
    assert "have changed: prepare them into another" in refusal(make, photos, shards, *flags)
    assert not shard(shards).exists()


@pytest.mark.parametrize("column", ["all-label.npy", "all-sums.npy"])
def test_damaged_columns_are_named_in_one_line(shards, column):
    flip(shards / column, -2)
    assert f"{shards / column} is damaged" in refusal(prepared_data.load, shards)
    (shards / column).unlink()
    assert f"{shards / column} is missing" in refusal(prepared_data.load, shards)


def test_a_manifest_that_is_missing_damaged_or_newer_is_one_line(shards):
    path = shards / manifest.NAME
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"version": manifest.VERSION + 1}))
    assert "prepared by a newer version (format 2" in refusal(prepared_data.load, shards)
    for text in ("", "[]", "{}", json.dumps(said)[:-9], json.dumps(said | {"encoding": "png"})):
        path.write_text(text)
        assert str(path) in refusal(prepared_data.load, shards)
    path.unlink()
    assert "holds no prepared data set" in refusal(prepared_data.load, shards)
    assert "data.path is empty" in refusal(prepared_data.load, "")
    assert "config.data.copy='x' is unknown" in refusal(prepared_data.load, shards, copy="x") or (
        "holds no prepared" in refusal(prepared_data.load, shards, copy="x")
    )


def test_a_copy_is_made_once_and_read_from_then_on(shards, capsys):
    expected = read_all(shards)
    assert_equal(read_all(shards, copy="always"), expected)
    assert "Copying" in capsys.readouterr().out
    for path in shards.glob("all-0*"):
        path.unlink()
    assert_equal(read_all(shards, copy="always"), expected)
    assert capsys.readouterr().out == ""


def copies(tmp_path):
    return sorted((tmp_path / "cache").rglob("all-0*"))


def test_a_damaged_copy_is_copied_again(shards, tmp_path, capsys):
    expected = read_all(shards, copy="always")
    flip(copies(tmp_path)[2])
    capsys.readouterr()
    assert_equal(read_all(shards, copy="always"), expected)
    out = capsys.readouterr().out
    assert f"{copies(tmp_path)[2]} is damaged: it is copied again" in out
    assert_equal(read_all(shards, copy="always"), expected)
    assert capsys.readouterr().out == ""


def test_a_disk_that_is_too_small_is_said_before_copying(shards, tmp_path, monkeypatch):
    full = types.SimpleNamespace(free=copying.SPARE_BYTES + 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    text = refusal(prepared_data.load, shards, copy="always")
    assert "0.3 GB free" in text and "--config.data.copy=never" in text
    assert copies(tmp_path) == []


def test_the_fingerprint_reads_no_shard_and_does_not_depend_on_their_number(tmp_path, photos):
    abouts = []
    for per_shard in (2, 5):
        out = tmp_path / str(per_shard)
        make(photos, out, f"--per_shard={per_shard}")
        source = prepared_data.load(out)["all"]
        for path in out.glob("all-0*"):
            path.unlink()
        abouts.append(source.fingerprint())
    assert abouts[0] == abouts[1]
    (photos / "cat" / "0.jpg").write_bytes(image_folders.picture(50))
    make(photos, tmp_path / "other", "--per_shard=5")
    other = prepared_data.load(tmp_path / "other")["all"].fingerprint()
    assert {name for name in other if other[name] != abouts[0][name]} == {"pixels"}


def test_spec_reads_only_the_manifest(shards):
    for path in shards.iterdir():
        if path.name != manifest.NAME:
            path.unlink()
    prepared.manifest_of.cache_clear()
    assert prepared.spec(prepared_data.config(shards))["image"].shape == (SIDE, SIDE, 3)


def test_a_zip_becomes_the_same_shards_as_its_folder(tmp_path, photos):
    make(photos, tmp_path / "folder")
    make(image_folders.zipped(photos), tmp_path / "zip")
    assert prepared_data.digests(tmp_path / "folder") == prepared_data.digests(tmp_path / "zip")


def test_the_default_number_of_shards_depends_on_names_and_sizes_only(photos):
    _, asked = planned(photos)
    assert (asked.encoding, asked.per_shard) == ("pixels", {"all": 12})
    many = types.SimpleNamespace(
        parts={"train": 1_281_167, "heldout": 50_000}, shape=None, identity="x"
    )
    large = plan.make(many, plan.Asked((256, 256)))
    assert large.encoding == "jpeg"
    assert large.per_shard == {"train": 4551, "heldout": 4551}
    assert plan.make(many, plan.Asked(shards=64)).per_shard["train"] == 20019
