import jax
import numpy as np
import pytest

from configs import beta_vae
from pipeline import datasets
from pipeline.datasets import arrays
from pipeline.runtime import errors

IMAGE = np.random.default_rng(0).integers(0, 256, (30, 4, 6, 3), np.uint8)
LABEL = np.arange(30) % 4


def config(path, **fields):
    found = beta_vae.get_config("arrays,smoke")
    found.batch_size, found.data.path = 4, str(path)
    for field, value in fields.items():
        found.data[field] = value
    return found


def refused(path, **fields):
    """Returns the line that refuses the files at `path`."""
    arrays_of = config(path, **fields)
    with pytest.raises(errors.InputError) as caught:
        datasets.load(arrays_of)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


def saved(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in files.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def test_an_npy_is_mapped_and_read_as_it_is(tmp_path):
    np.save(tmp_path / "a.npy", IMAGE)
    example = datasets.example_spec(config(tmp_path / "a.npy"))
    assert example == {"image": datasets.Pixels((4, 6, 3), "uint8", 0, 255)}
    source = arrays.load(config(tmp_path / "a.npy").data)["all"]
    np.testing.assert_array_equal(source.read(np.array([7, 0]))["image"], IMAGE[[7, 0]])
    base = source.arrays["image"]
    while base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_labels_factors_and_attributes_lie_beside_the_images(tmp_path, kind):
    files = {
        "image": IMAGE,
        "label": LABEL,
        "factors": np.stack([LABEL, LABEL % 2], axis=1).astype(np.uint8),
        "age": np.linspace(0, 1, 30),
    }
    if kind == "npz":
        np.savez(tmp_path / "a.npz", **files)
    path = saved(tmp_path / "a", **files) if kind == "folder" else tmp_path / "a.npz"
    example = datasets.example_spec(config(path))
    assert example["label"] == datasets.label(4)
    assert example["factors"] == datasets.factors((4, 2), ("factor_0", "factor_1"))
    assert example["age"] == jax.ShapeDtypeStruct((), np.float32)
    found = datasets.load(config(path)).train.source.read(np.arange(30))
    for name, array in files.items():
        np.testing.assert_array_equal(found[name], array.astype(example[name].dtype))
        assert found[name].dtype == example[name].dtype


@pytest.mark.parametrize("kind", ["folders", "npy", "npz"])
def test_parts_that_are_given_are_the_splits(tmp_path, kind):
    for part, rows in (("train", slice(20)), ("heldout", slice(20, 30))):
        if kind == "folders":
            saved(tmp_path / part, image=IMAGE[rows])
        elif kind == "npy":
            np.save(tmp_path / f"{part}.npy", IMAGE[rows])
        else:
            np.savez(tmp_path / f"{part}.npz", image=IMAGE[rows])
    found = datasets.load(config(tmp_path))
    np.testing.assert_array_equal(found.train.read(np.arange(20))["image"], IMAGE[:20])
    np.testing.assert_array_equal(found.heldout.read(np.arange(10))["image"], IMAGE[20:])


@pytest.mark.parametrize(
    ("dtype", "values", "fields", "expected"),
    [
        ("uint16", 2.0**15, {}, ("uint16", 0, 65535)),
        ("uint16", 4095, {"high": 4095.0}, ("uint16", 0, 4095)),
        (">u2", 4095, {"low": 5.0, "high": 4096.0}, ("uint16", 5, 4096)),
        ("float16", 1, {"low": -1.0, "high": 1.0}, ("float16", -1, 1)),
        ("uint8", 1, {"high": 1.0}, ("uint8", 0, 1)),
    ],
)
def test_the_range_is_the_stated_one_or_that_of_the_dtype(
    tmp_path, dtype, values, fields, expected
):
    path = saved(tmp_path, image=np.full((30, 4, 4, 1), values, dtype))
    kind, low, high = expected
    example = datasets.example_spec(config(path, **fields))
    assert example["image"] == datasets.Pixels((4, 4, 1), kind, low, high)
    image = datasets.load(config(path, **fields)).train.read(np.arange(3))["image"]
    assert image.dtype == np.dtype(kind) and (image == values).all()


@pytest.mark.parametrize(
    ("image", "fields", "words"),
    [
        (np.zeros((9, 4, 4, 1), np.float32), {}, "images of float32, whose range is not known"),
        (np.full((9, 4, 4, 1), 4000, np.uint16), {}, "4000: state what becomes 1, such as --conf"),
        (np.zeros((9, 4, 4, 1)), {}, "has images of float64: convert them to uint8"),
        (np.zeros((9, 4, 4, 1), np.int16), {"high": 9.0}, "has images of int16: convert"),
        (np.full((9, 4, 4, 1), 2, np.float32), {"high": 1.0}, "example 0 has the value 2.0 at"),
        (np.full((9, 4, 4, 1), np.nan, np.float32), {"high": 1.0}, "has the value nan at [0, 0,"),
        (np.zeros((9, 4, 4, 1), np.uint8), {"low": 9.0, "high": 1.0}, "the range 9 … 1 of uint8"),
        (np.zeros((9, 4, 4), np.uint8), {}, "`image` [9, 4, 4], which must be [N, H, W, C]"),
        (np.zeros((9, 4, 4, 4, 1), np.uint8), {}, "of volumes take the slices"),
        (np.zeros((0, 4, 4, 1), np.uint8), {}, "has no images"),
        (np.zeros((), np.uint8), {}, "has no images"),
        (np.array([{}] * 9), {}, "holds Python objects, which are never unpickled"),
        (np.zeros(9, [("a", "u1")]), {}, "which must be [N, H, W, C]"),
    ],
)
def test_images_that_cannot_be_meant_are_refused(tmp_path, image, fields, words):
    assert words in refused(saved(tmp_path, image=image), **fields)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("label", LABEL[:29], "has 30 images and `label` [29]: each array needs one row"),
        ("label", LABEL - 1, "has the label -1: classes begin at 0"),
        ("label", LABEL / 2, "has `label` float64 [30]: it must hold whole numbers from 0 on, [N]"),
        (
            "factors",
            LABEL,
            "has `factors` int64 [30]: it must hold whole numbers from 0 on, [N, k]",
        ),
        ("mask", IMAGE, "arrays beside image and labels are attributes, floats [N] or [N, k]"),
        ("name", np.array(["a"] * 30), "has `name` <U1 [30]: arrays beside"),
        ("names", np.array(["a", 1] * 15, object), "holds Python objects"),
    ],
)
def test_arrays_that_do_not_belong_to_the_images_are_refused(tmp_path, name, array, words):
    assert words in refused(saved(tmp_path, image=IMAGE, **{name: array}))


def test_what_is_missing_or_damaged_is_refused(tmp_path):
    assert "config.data.path is empty: give an .npy or .npz file" in refused("")
    assert "none is missing: --config.data.path must be an .npy" in refused(tmp_path / "none")
    assert "has no image.npy: save the images there" in refused(tmp_path)
    np.save(tmp_path / "pixels.npy", IMAGE)
    assert "has no image.npy (only pixels.npy)" in refused(tmp_path)
    np.savez(tmp_path / "a.npz", x=IMAGE)
    assert "has the arrays x, and none with the name 'image'" in refused(tmp_path / "a.npz")
    whole = (tmp_path / "pixels.npy").read_bytes()
    for number, content in enumerate(
        (whole[:-1], whole[:40], b"", b"text", whole[:9] + b"\xff" * 90)
    ):
        (tmp_path / f"{number}.npy").write_bytes(content)
        assert f"{number}.npy cannot be read (" in refused(tmp_path / f"{number}.npy")
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:300])
    assert "b.npz cannot be read (" in refused(tmp_path / "b.npz")


def test_parts_must_be_complete_and_alike(tmp_path):
    np.save(tmp_path / "train.npy", IMAGE)
    assert f"no 'heldout': add {tmp_path / 'heldout'}, a folder, .npy or .npz" in refused(tmp_path)
    np.save(tmp_path / "heldout.npy", IMAGE[:, :3])
    assert "has image uint8 [4, 6, 3], and" in refused(tmp_path)
    assert "image uint8 [3, 6, 3]: both parts need the same" in refused(tmp_path)


def test_a_changed_file_is_another_fingerprint(tmp_path):
    one = saved(tmp_path / "one", image=IMAGE)
    changed = IMAGE.copy()
    changed[5, 0, 0, 0] ^= 1
    other = saved(tmp_path / "other", image=changed)
    prints = [datasets.fingerprint(arrays.load(config(path).data)["all"]) for path in (one, other)]
    assert prints[0]["examples"] == prints[1]["examples"] == "30"
    assert prints[0]["content"] != prints[1]["content"]
