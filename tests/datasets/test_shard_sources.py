"""Every kind of source is prepared and read back: pixels, labels, factors, parts and names."""

import io
import json
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import prepared
from pipeline.runtime import errors
from tests.support import prepared_data
from tests.support.image_folders import folder

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
LABELS = np.arange(9) % 3


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def check(source, tmp_path, *flags, part="all", images=IMAGES, **entries):
    """Prepares a source; a part must hold the images and the entries."""
    out = tmp_path / "out"
    flags = flags or ("--image_size=8",)
    prepared_data.make(source, out, *flags)
    found = prepared_data.load(out)
    read = prepared_data.everything(found[part])
    np.testing.assert_array_equal(read.pop("image"), images)
    assert read.keys() == entries.keys()
    for name, values in entries.items():
        np.testing.assert_array_equal(read[name], values)
        assert read[name].dtype == np.int32
    return found, prepared.spec(prepared_data.config(out))


def refusal(source, tmp_path, *flags):
    with pytest.raises(errors.InputError) as raised:
        prepared_data.make(source, tmp_path / "refused", *flags)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_an_npy_keeps_the_size_of_its_images(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES[..., 0])
    _, spec = check(tmp_path / "a.npy", tmp_path, "--shards=3", images=IMAGES[..., :1])
    assert spec["image"].shape == (8, 8, 1)


def test_an_npz_has_images_labels_and_factors(tmp_path):
    factors = np.stack([LABELS, LABELS % 2], 1)
    np.savez_compressed(tmp_path / "a.npz", imgs=IMAGES, y=LABELS, latents_classes=factors)
    _, spec = check(tmp_path / "a.npz", tmp_path, "--per_shard=4", label=LABELS, factors=factors)
    assert spec["label"].num_classes == (3,)
    assert spec["factors"].num_classes == (3, 2)


def test_an_npz_of_keras_has_two_parts(tmp_path):
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:3], "y_test": LABELS[:3]}
    np.savez(tmp_path / "mnist.npz", **arrays)
    found, _ = check(tmp_path / "mnist.npz", tmp_path, "--shards=2", part="train", label=LABELS)
    np.testing.assert_array_equal(prepared_data.everything(found["heldout"])["image"], IMAGES[:3])


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"images": IMAGES.astype(np.uint16)}, "uint16"),
        ({"images": IMAGES.astype(np.float32)}, "float32"),
        ({"images": IMAGES[0, 0]}, r"\[8, 3\]"),
        ({"speed": LABELS}, "has no array of images"),
        ({"images": IMAGES, "labels": LABELS[:4]}, "for 9 images"),
        ({"images": IMAGES, "labels": LABELS - 1}, "classes begin with 0"),
        ({"images": IMAGES, "imgs": IMAGES}, "keep one"),
        ({"test_images": IMAGES}, "nothing that is named train"),
    ],
)
def test_arrays_that_cannot_be_prepared_are_one_line(tmp_path, arrays, text):
    import re

    np.savez(tmp_path / "a.npz", **arrays)
    assert re.search(text, refusal(tmp_path / "a.npz", tmp_path))


def test_a_damaged_npz_is_one_line(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK no zip")
    assert "no whole .npz" in refusal(tmp_path / "a.npz", tmp_path)


def write_tar(path, rows):
    with tarfile.open(path, "w") as archive:
        for name, content in rows:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def rows_of_tar(indices, suffix="cls"):
    for i in indices:
        label = str(LABELS[i]) if suffix == "cls" else json.dumps({"label": int(LABELS[i])})
        yield f"x/{i:04d}.png", png(IMAGES[i])
        yield f"x/{i:04d}.{suffix}", label.encode()
        yield f"x/{i:04d}.txt", b"a text"


@pytest.mark.parametrize("suffix", ["cls", "json"])
def test_tars_of_webdataset_are_read_in_natural_order(tmp_path, suffix):
    (tmp_path / "tars").mkdir()
    for name, indices in (("10", range(5, 9)), ("9", range(5))):
        write_tar(tmp_path / "tars" / f"{name}.tar", rows_of_tar(indices, suffix))
    check(tmp_path / "tars", tmp_path, "--image_size=8", "--per_shard=2", label=LABELS)


def test_json_without_a_label_is_none(tmp_path):
    write_tar(tmp_path / "a.tar", [("a.png", png(IMAGES[0])), ("a.json", b'{"width": 8}')])
    check(tmp_path / "a.tar", tmp_path, images=IMAGES[:1])


def test_tars_that_are_named_like_parts_are_parts(tmp_path):
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars" / "set-train-0000.tar", rows_of_tar(range(6)))
    write_tar(tmp_path / "tars" / "set-val-0000.tar", rows_of_tar(range(6, 9)))
    check(tmp_path / "tars", tmp_path, part="heldout", images=IMAGES[6:], label=LABELS[6:])


def test_bad_tars_are_one_line(tmp_path):
    write_tar(tmp_path / "a.tar", [("a.png", png(IMAGES[0])), ("a.cls", b"cat")])
    assert "holds no whole number" in refusal(tmp_path / "a.tar", tmp_path)
    write_tar(tmp_path / "b.tar", [*rows_of_tar(range(2)), ("9.png", png(IMAGES[0]))])
    assert "has no label, but others" in refusal(tmp_path / "b.tar", tmp_path)
    (tmp_path / "parts").mkdir()
    write_tar(tmp_path / "parts" / "train.tar", rows_of_tar(range(2)))
    write_tar(tmp_path / "parts" / "val.tar", [("9.png", png(IMAGES[0]))])
    assert "'val.tar/9' has no label, but others" in refusal(tmp_path / "parts", tmp_path)
    (tmp_path / "c.tar").write_bytes(b"x" * 2000)
    assert "is no whole tar" in refusal(tmp_path / "c.tar", tmp_path)
    assert "unpack it" in refusal(tmp_path / "d.tar.gz", tmp_path)


def test_parquet_files_have_labels_by_number_or_by_text(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": png(image), "path": None} for image in IMAGES]
    (tmp_path / "numbers").mkdir()
    table = arrow.table({"image": images, "label": LABELS.tolist(), "id": list(range(9))})
    parquet.write_table(table, tmp_path / "numbers" / "a.parquet", row_group_size=4)
    check(tmp_path / "numbers", tmp_path, "--per_shard=5", "--image_size=8", label=LABELS)
    texts = ["c10", "c9", "b"]
    columns = {"png": [png(i) for i in IMAGES], "class": [texts[i] for i in LABELS]}
    parquet.write_table(arrow.table(columns), tmp_path / "t.parquet")
    (tmp_path / "two").mkdir()
    _, spec = check(tmp_path / "t.parquet", tmp_path / "two", label=2 - LABELS)
    assert spec["label"].class_names == (("b", "c9", "c10"),)


def hugging_face(rows, **features):
    library = pytest.importorskip("datasets")
    images = [Image.fromarray(IMAGES[i]) for i in rows]
    columns = {"image": images, "label": [int(LABELS[i]) for i in rows]}
    kinds = {"image": library.Image(), "label": library.ClassLabel(names=["a", "b", "c"])}
    for name, values in features.items():
        columns[name], kinds[name] = [values[i] for i in rows], library.Value("bool")
    return library.Dataset.from_dict(columns, features=library.Features(kinds))


def test_a_hugging_face_data_set_that_was_saved_to_disk_is_read(tmp_path):
    library = pytest.importorskip("datasets")
    young = [bool(i % 2) for i in range(9)]
    splits = {"train": hugging_face(range(9), young=young),
              "test": hugging_face(range(2), young=young),
              "validation": hugging_face(range(3), young=young)}  # fmt: skip
    library.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    factors = np.array(young)[:, None]
    found, spec = check(
        f"hf:{tmp_path / 'saved'}", tmp_path, part="train", label=LABELS, factors=factors
    )
    assert len(found["heldout"]) == 3
    assert spec["label"].class_names == (("a", "b", "c"),)
    assert (spec["factors"].names, spec["factors"].num_classes) == (("young",), (2,))


def test_a_saved_folder_without_splits_needs_no_prefix(tmp_path):
    hugging_face(range(9)).save_to_disk(tmp_path / "saved")
    check(tmp_path / "saved", tmp_path, label=LABELS)


def test_a_missing_library_is_one_line_that_names_the_extra(tmp_path, monkeypatch):
    for library in ("datasets", "tensorflow_datasets", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, library, None)
    assert "'vae-pipeline[hf]'" in refusal("hf:mnist", tmp_path)
    assert "'vae-pipeline[tfds]'" in refusal("tfds:mnist", tmp_path)
    (tmp_path / "a.parquet").touch()
    assert "'vae-pipeline[parquet]'" in refusal(tmp_path / "a.parquet", tmp_path)


def test_a_data_set_of_tfds_is_read_without_tensorflow(tmp_path):
    library = pytest.importorskip("tensorflow_datasets")
    features = library.features

    class Own(library.core.GeneratorBasedBuilder):
        """Nine pictures and two."""

        VERSION = library.core.Version("1.0.0")
        pkg_dir_path = tmp_path

        def _info(self):
            return self.dataset_info_from_configs(
                features=features.FeaturesDict(
                    {
                        "image": features.Image(shape=(8, 8, 3), encoding_format="png"),
                        "label": features.ClassLabel(names=["a", "b", "c"]),
                        "attributes": features.FeaturesDict({"young": np.bool_}),
                    }
                ),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(9), "test": self._generate_examples(2)}

        def _generate_examples(self, num):
            for i in range(num):
                attributes = {"young": bool(i % 2)}
                image = io.BytesIO(png(IMAGES[i]))  # TensorFlow would encode an array
                yield i, {"image": image, "label": int(LABELS[i]), "attributes": attributes}

    builder = Own(data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare()
    factors = (np.arange(9) % 2)[:, None]
    source = f"tfds:{builder.data_path}"
    found, spec = check(source, tmp_path, part="train", label=LABELS, factors=factors)
    assert len(found["heldout"]) == 2
    assert spec["label"].class_names == (("a", "b", "c"),)
    assert "tensorflow" not in sys.modules


def test_a_source_that_is_nothing_is_one_line(tmp_path):
    assert "is missing" in refusal(tmp_path / "nothing", tmp_path)
    assert "lies in a bucket" in refusal("gs://bucket/images", tmp_path)
    assert "needs a name" in refusal("hf:", tmp_path)
    folder(tmp_path / "f", ["1.txt"])
    assert "has no images" in refusal(tmp_path / "f", tmp_path)
    folder(tmp_path / "g", ["1.png"])
    assert "must be 1 or 3" in refusal(tmp_path / "g", tmp_path, "--channels=2")
    assert "is less than --image_size" in refusal(
        tmp_path / "g", tmp_path, "--image_size=8", "--resize=4"
    )
    assert "say the same" in refusal(tmp_path / "g", tmp_path, "--shards=1", "--per_shard=3")


def test_arrays_that_are_no_squares_are_stored_as_they_are_or_cut(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES[:, :6])
    check(tmp_path / "a.npy", tmp_path, "--shards=2", images=IMAGES[:, :6])
    (tmp_path / "cut").mkdir()
    check(tmp_path / "a.npy", tmp_path / "cut", "--image_size=6", images=IMAGES[:, :6, 1:7])
    (tmp_path / "png").mkdir()
    flags = "--image_size=6,8", "--encoding=png"
    check(tmp_path / "a.npy", tmp_path / "png", *flags, images=IMAGES[:, :6])
    for size in ("x", "1,2,3", "-1", "0,3", ""):
        text = refusal(tmp_path / "a.npy", tmp_path, f"--image_size={size}")
        assert f"--image_size={size} must be pixels a side" in text
