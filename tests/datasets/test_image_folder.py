import os
import resource
import threading
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from configs import beta_vae
from pipeline import datasets
from pipeline.datasets import _image_files, image_folder
from pipeline.datasets.shards import workers
from tests.support.image_folders import config, folder, picture, reds, refusal, zipped


@pytest.fixture(autouse=True)
def fresh():
    image_folder.layout.cache_clear()  # which lasts as long as the process


def test_a_flat_folder_is_in_natural_order_and_has_no_label(tmp_path):
    root = folder(tmp_path / "f", ["1.png", "2.png", "2b.png", "10.png", "a.png"])
    for path in (root, zipped(root)):
        parts = image_folder.load(config(path))
        assert list(parts) == ["all"]
        assert reds(parts["all"]) == [0, 1, 2, 3, 4]
        assert set(parts["all"].read(np.array([0]))) == {"image"}
        assert set(image_folder.spec(config(path))) == {"image"}


def test_sub_folders_are_classes_taken_in_turn(tmp_path):
    names = ["cat/1.png", "dog/d8.png", "owl/x.png", "cat/2.png", "dog/d9.png", "dog/deep/a.png"]
    root = folder(tmp_path / "f", names)
    for path in (root, zipped(root)):
        source = image_folder.load(config(path))["all"]
        assert reds(source) == [0, 1, 2, 3, 4, 5]
        assert source.label.tolist() == [0, 1, 2, 0, 1, 1]
        spec = image_folder.spec(config(path))
        assert spec["label"].num_classes == (3,)
        for name, leaf in spec.items():
            value = source.read(np.array([2, 0]))[name]
            assert (value.shape, value.dtype) == ((2, *leaf.shape), leaf.dtype)


@pytest.mark.parametrize("held", ["val", "test", "heldout"])
@pytest.mark.parametrize("classes", [("a/", "b/"), ("",)])
def test_a_published_split_is_kept(tmp_path, held, classes):
    names = [f"{part}/{c}{n}.png" for part in ("train", held) for n in range(3) for c in classes]
    root = folder(tmp_path / "f", names)
    for path in (root, zipped(root)):
        parts = image_folder.load(config(path))
        assert reds(parts["train"]) + reds(parts["heldout"]) == list(range(len(names)))
        assert ("label" in image_folder.spec(config(path))) == (len(classes) == 2)


def test_val_is_held_out_where_test_is_there_as_well(tmp_path):
    root = folder(tmp_path / "f", ["train/a.png", "val/a.png", "test/a.png"])
    assert reds(image_folder.load(config(root))["heldout"]) == [1]


def test_other_files_hidden_ones_and_case_do_not_matter(tmp_path):
    others = ["labels.csv", ".DS_Store", "._1.png", ".trash/3.png", "__MACOSX/._1.png"]
    root = folder(tmp_path / "f", ["1.PNG", "2.JpEg"], **dict.fromkeys(others, b"x"))
    for path in (root, zipped(root)):
        assert reds(image_folder.load(config(path))["all"]) == [0, 1]


def test_names_in_any_script_and_undecodable_ones(tmp_path):
    names = ["cafe\u0301.png", "caf\xe9.png", "猫.png", "🐈 1.png"]
    root = folder(tmp_path / "f", names)
    assert reds(image_folder.load(config(root))["all"]) == [0, 1, 2, 3]
    assert reds(image_folder.load(config(zipped(root)))["all"]) == [0, 1, 2, 3]
    (root / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    refusal(root).encode()  # can be printed


def test_links_are_followed(tmp_path):
    outside = folder(tmp_path / "o", ["1.png", "2.png"])
    (tmp_path / "f" / "a").mkdir(parents=True)
    (tmp_path / "f" / "a" / "1.png").symlink_to(outside / "1.png")
    (tmp_path / "f" / "b").symlink_to(outside)
    source = image_folder.load(config(tmp_path / "f"))["all"]
    assert reds(source) == [0, 0, 1]
    assert source.label.tolist() == [0, 1, 1]


def test_links_in_a_circle_and_broken_ones(tmp_path):
    root = folder(tmp_path / "f", ["a/1.png", "b/1.png"])
    (root / "b" / "2.png").symlink_to(root / "none")
    assert "'b/2.png' ([Errno 2]" in refusal(root)
    (root / "b" / "c").symlink_to(root)
    assert f"{root / 'b' / 'c'} links to a folder that it lies in" in refusal(root)


def test_a_pipe_is_not_waited_for(tmp_path):
    root = folder(tmp_path / "f", ["1.png"])
    os.mkfifo(root / "2.png")
    assert "'2.png' (no regular file)" in refusal(root)


@pytest.mark.parametrize(
    "name", ["../1.png", "a/../../1.png", "/1.png", "a//1.png", "./1.png", "a\\1.png"]
)
def test_a_zip_with_names_that_are_no_plain_paths_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("0.png", picture())
        archive.writestr(name, picture())
    assert f"has the member {name!r}, no plain relative path" in refusal(tmp_path / "z.zip")


def test_a_zip_with_a_name_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("1.png", picture())
        with warnings.catch_warnings(action="ignore"):
            archive.writestr("1.png", picture(1))
    assert "has 2 members '1.png'" in refusal(tmp_path / "z.zip")


def test_a_link_in_a_zip_is_no_way_out_of_it(tmp_path):
    folder(tmp_path, ["secret.png"])
    info = zipfile.ZipInfo("link.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr(info, str(tmp_path / "secret.png"))
    assert "'link.png'" in refusal(tmp_path / "z.zip")


def bomb(side):
    """Returns a PNG of a few bytes whose header claims side × side pixels."""

    def chunk(kind, body):
        size, check = len(body).to_bytes(4, "big"), zlib.crc32(kind + body).to_bytes(4, "big")
        return size + kind + body + check

    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    pixels = zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


CORRUPT = {
    "03.png": b"",
    "04.jpg": picture(suffix="jpg", size=(64, 64))[:-100],
    "05.webp": b"text",
    "06.png": bomb(10_000),
    "07.png": bomb(60_000),
    "08.png": picture()[:40],
}


def test_corrupt_files_are_skipped_and_named_in_a_warning(tmp_path, capsys):
    names = [f"{n:02}.png" for n in (1, 2, 9, 10)]
    root = folder(tmp_path / "f", names, **CORRUPT)
    for path in (root, root, zipped(root)):  # decoded, from the copy, from a zip
        source = image_folder.load(config(path, max_corrupt_files=6))["all"]
        assert reds(source) == [0, 1, 2, 3]
        printed = capsys.readouterr().out
        assert f"warning: 6 of 10 images in {path} cannot be decoded: '03.png' (0 bytes" in printed
        assert "decompression bomb" in printed
        assert "…; they are skipped" in printed


def test_more_corrupt_files_than_allowed_are_refused(tmp_path):
    root = folder(tmp_path / "f", ["01.png"], **CORRUPT)
    for _ in range(2):
        found = refusal(root, max_corrupt_files=5)
        assert "6 of 7 images" in found
        assert "'03.png' (0 bytes that are no PNG, JPEG," in found
        assert "--config.data.max_corrupt_files=6 (now 5)" in found


def test_a_part_without_a_whole_image_is_refused(tmp_path):
    root = folder(tmp_path / "f", ["train/1.png"], **{"val/1.png": b""})
    assert "every image of the part 'heldout' is corrupt" in refusal(root, max_corrupt_files=1)


def test_labels_stay_with_their_images_where_some_are_skipped(tmp_path):
    root = folder(tmp_path / "f", ["a/2.png", "b/1.png", "b/3.png"], **{"a/1.png": b""})
    source = image_folder.load(config(root, max_corrupt_files=1))["all"]
    assert reds(source) == [1, 0, 2]
    assert source.label.tolist() == [1, 0, 1]


def test_damaged_members_of_a_zip_are_corrupt_files(tmp_path):
    path = zipped(folder(tmp_path / "f", ["1.png", "2.png"]))
    content = bytearray(path.read_bytes())
    content[content.index(b"1.png") + 20] ^= 0xFF
    path.write_bytes(content)
    assert "1 of 2 images" in refusal(path)


def test_a_huge_file_is_not_read(tmp_path):
    root = folder(tmp_path / "f", ["1.png"])
    with open(root / "2.png", "wb") as file:
        file.truncate(_image_files.MAX_BYTES + 1)
    assert "'2.png' (268435457 bytes, more than 268435456)" in refusal(root)


def test_a_failing_disk_is_not_taken_for_a_corrupt_file(tmp_path, monkeypatch):
    root = folder(tmp_path / "f", ["1.png"])

    def failing(self, name):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(_image_files.Folder, "read", failing)
    found = refusal(root, max_corrupt_files=1)
    assert "'1.png' cannot be read ([Errno 5] Input/output error): see to the disk" in found
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_full_disk_is_told_and_leaves_no_copy(tmp_path):
    root = folder(tmp_path / "f", [f"{n}.png" for n in range(50)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"cannot write .*make room .*XDG_CACHE_HOME"):
            image_folder.load(config(root))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    left = {file.suffix for file in (tmp_path / "cache").rglob("*.*")}
    assert left == {".index", ".lock", ".json"}  # the plan, with which the next start goes on


def test_images_are_decoded_once_and_mapped(tmp_path, capsys):
    root = folder(tmp_path / "f", ["1.png", "2.png"])
    image_folder.load(config(root))
    assert "Decoding 2 images of" in capsys.readouterr().out
    source = image_folder.load(config(root))["all"]
    assert reds(source) == [0, 1]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("changes", [{"channels": 1}, {"image_size": 4}, {"resize": 16}])
def test_another_format_is_another_copy(tmp_path, changes):
    root = folder(tmp_path / "f", ["1.png", "2.png"])
    image_folder.load(config(root))
    source = image_folder.load(config(root, **changes))["all"]
    spec = image_folder.spec(config(root, **changes))["image"]
    assert source.read(np.array([1]))["image"].shape == (1, *spec.shape)
    assert len(list((tmp_path / "cache").rglob("dataset.json"))) == 2


def test_changed_content_is_decoded_anew_even_if_size_and_time_stay(tmp_path):
    root = folder(tmp_path / "f", ["1.png", "2.png"])
    image_folder.load(config(root))
    before = (root / "2.png").stat()
    changed = picture(77)
    assert len(changed) == before.st_size
    (root / "2.png").write_bytes(changed)
    os.utime(root / "2.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert reds(image_folder.load(config(root))["all"]) == [0, 77]


@pytest.mark.parametrize("name", ["all-00000.npy", "all-sums.npy", "dataset.json", "*.index"])
def test_a_copy_that_is_not_whole_is_made_anew(tmp_path, name):
    root = folder(tmp_path / "f", ["1.png", "2.png"])
    image_folder.load(config(root))
    (copy,) = (tmp_path / "cache").rglob(name)
    copy.write_bytes(copy.read_bytes()[:-1])
    assert reds(image_folder.load(config(root))["all"]) == [0, 1]


def test_loads_at_the_same_time_decode_once(tmp_path, capsys):
    root = folder(tmp_path / "f", [f"{n}.png" for n in range(50)])
    ready = threading.Barrier(4)

    def load(_):
        ready.wait()
        return reds(image_folder.load(config(root))["all"])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(load, range(4))) == [list(range(50))] * 4
    assert capsys.readouterr().out.count("Decoding 50 images of") == 1


def test_long_decoding_reports_its_progress(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(workers, "REPORT_SECONDS", 0.0)
    image_folder.load(config(folder(tmp_path / "f", [f"{n}.png" for n in range(5)])))
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split("  ")[0] for line in lines] == [f"image {k}/5" for k in range(1, 6)]


def test_no_path_and_a_missing_one_are_refused(tmp_path):
    assert "config.data.path is empty: give the folder or zip of images" in refusal("")
    assert "f is missing: --config.data.path must be a folder or a zip" in refusal(tmp_path / "f")


def test_a_folder_without_images_and_a_file_that_is_no_zip_are_refused(tmp_path):
    assert f"{tmp_path} has no images (.png, .jpg, .jpeg, .jpe, .jfif, .webp" in refusal(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    assert "a.txt is neither a folder nor a whole zip" in refusal(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat/1.png", "cat/2.png"], "has one sub-folder with images, 'cat', but at least two"),
        (["train/a/1.png"], "has 'train', which is named like a part, but no folder for held-out"),
        (["cat/1.png", "dog/1.png", "2.png"], "has 1 images beside its sub-folders ('cat' …)"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png"], "the class 'b' is in"),
        (["train/1.png", "val/a/1.png", "val/b/1.png"], "the class 'a' is in only one of"),
        (["train/1.png", "val/1.png", "other/1.png"], "has 1 images elsewhere, such as 'other/1"),
        (["train/1.png", "val/1.png", "1.png"], "is split into train, val, and has 1 images else"),
    ],
)
def test_folders_that_are_no_layout_are_refused(tmp_path, names, message):
    assert message in refusal(folder(tmp_path / "f", names))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 4}, "config.data.channels=4 must be 1 or 3"),
        ({"image_size": 0}, "config.data.image_size=0 must be at least 1"),
        ({"resize": 7}, "config.data.resize=7 is less than config.data.image_size=8"),
    ],
)
def test_impossible_sizes_are_refused(tmp_path, changes, message):
    assert message in refusal(folder(tmp_path / "f", ["1.png"]), **changes)


def test_a_run_s_data_holds_out_by_the_seed_and_counts_the_rest(tmp_path):
    settings = beta_vae.get_config("image_folder,smoke")
    settings.data.path = str(folder(tmp_path / "f", [f"{n}.png" for n in range(20)]))
    settings.data.heldout_examples = settings.batch_size = 4
    splits = datasets.load(settings)
    assert (len(splits.train), len(splits.heldout)) == (16, 4)
    assert sorted(reds(splits.train) + reds(splits.heldout)) == list(range(20))
