"""Formats of images: each one is trained on for some steps, evaluated and drawn."""

import types

import jax
import numpy as np
import pytest
from PIL import Image

from configs import beta_vae, vq_vae
from pipeline import datasets, evals
from pipeline.display import pictures
from pipeline.evals import heldout
from pipeline.mesh import sharding
from pipeline.outputs import samples
from pipeline.runtime import errors
from pipeline.training import batching, example_file, setup, step
from pipeline.training.pixels import variance

RNG = np.random.default_rng(0)
SHARES = RNG.random((40, 16, 16, 1))
BYTES = np.rint(255 * SHARES).astype(np.uint8)


class Given:
    """A data set that is not a file: the images in `array`, with the entry `image` of the spec."""

    def __init__(self, array, image):
        self.array, self.image = array, image

    def spec(self, section):
        return {"image": self.image}

    def load(self, section):
        return {"all": self}

    def __len__(self):
        return len(self.array)

    def read(self, indices):
        return {"image": self.array[indices]}


@pytest.fixture
def given(monkeypatch):
    """Returns a function from images and their entry to a config of them."""

    def make(array, image, *, variant=beta_vae, **fields):
        source = Given(array, image)
        module = types.SimpleNamespace(spec=source.spec, load=source.load)
        load = datasets.registry.load
        monkeypatch.setattr(
            datasets.registry,
            "load",
            lambda kind, name, **more: module if name == "given" else load(kind, name, **more),
        )
        return small(variant.get_config("smoke"), name="given", **fields)

    return make


def small(config, **fields):
    config.model.hidden, config.batch_size, config.eval_examples = (8,), 8, 8
    config.traversals.steps, config.interpolations.pairs = 2, 1
    for field, value in fields.items():
        section = config.model if field in ("likelihood", "sigma", "downsampling") else config.data
        section[field] = value
    return config.lock()


def trained(config):
    """Takes two steps; returns the setup, the state and the last loss."""
    ready = setup.prepare(config, devices=jax.devices()[:1])
    take = step.make_train_step(ready.config, ready.example, ready.mesh)
    state = step.create_state(ready.config, ready.example, ready.mesh)
    stop = jax.device_put(np.zeros(1, np.float32), sharding.batch_sharded(ready.mesh))
    batches = batching.ahead(ready.opened.train, ready.config, ready.mesh, first_step=0)
    for batch, _ in zip(batches, range(2), strict=False):
        assert batch["image"].dtype == ready.example["image"].dtype  # they travel as they are
        state, metrics, _ = take(state, batch, stop)
    assert np.isfinite(metrics["loss"])
    return ready, state, float(metrics["loss"])


def drawn(ready, state, *names):
    """Returns the pictures of evaluations, of which every one must be drawn."""
    found = []
    for name in names:
        module = evals.registry.load("evals", name, field="evals")
        for _, value in module.make(ready.config, ready.mesh, ready.opened.heldout)(state):
            found.append(np.asarray(value() if callable(value) else value))
            assert pictures.png(found[-1]) if found[-1].ndim == 3 else pictures.gif(found[-1])
    return found


def scaled(dtype, low, high):
    """Returns images of `dtype` whose share of the range is that of BYTES, and their entry."""
    array = BYTES / 255 * (high - low) + low
    array = np.rint(array) if np.dtype(dtype).kind == "u" else array
    return array.astype(dtype), datasets.Pixels((16, 16, 1), dtype, low, high)


def test_each_dtype_trains_as_the_same_images_in_bytes(given, tmp_path):
    image = jax.ShapeDtypeStruct((16, 16, 1), np.uint8)
    expected = trained(given(BYTES, image))
    for dtype, low, high in (("uint16", 100, 355), ("float32", -1000, 3000)):
        array, entry = scaled(dtype, low, high)
        ready, state, loss = trained(given(array, entry))
        assert loss == pytest.approx(expected[2], rel=1e-5)
        for leaf, other in zip(*map(jax.tree.leaves, (state, expected[1])), strict=True):
            np.testing.assert_allclose(leaf, other, atol=2e-3)
        # What leaves the pipeline again has the data set's own dtype and range.
        example_file.write(ready.example, tmp_path)
        (tmp_path / "images").mkdir(exist_ok=True)
        rows = samples.labels.Rows((), np.zeros((0, 0)), (), {})
        shares = np.linspace(0, 1, 16 * 16, dtype=np.float32).reshape(1, 16, 16, 1)
        samples.write(tmp_path / "images", shares, entry, rows, num=1, seed=0)
        found = np.load(tmp_path / "images" / samples.FILES[1])["images"]
        assert found.dtype == dtype and (found.min(), found.max()) == (low, high)
    first, second = drawn(ready, state, "reconstructions", "samples")
    assert first.shape[2] == second.shape[2] == 1


def test_a_run_without_its_data_keeps_the_range(given, tmp_path):
    array, entry = scaled("float16", -1, 1)
    config = given(array, entry)
    example_file.write(datasets.example_spec(config), tmp_path)
    config = config.copy_and_resolve_references()
    config.data.name, config.data.path = "image_folder", str(tmp_path / "nothing")
    assert example_file.of_run(config, tmp_path) == {"image": entry}


def test_data_on_the_devices_keep_their_dtype_and_train_the_same(given):
    array, entry = scaled("float16", -1, 1)
    streamed, resident = (trained(given(array, entry, resident=kept)) for kept in (False, True))
    assert streamed[2] == resident[2]


@pytest.mark.parametrize(("dtype", "low", "high"), [("uint16", 7, 4095), ("float32", -1e3, 2e3)])
def test_the_variance_is_that_of_the_pixels_in_the_unit_interval(given, dtype, low, high):
    array, entry = scaled(dtype, low, high)
    config = given(array, entry, variance=0.0)
    found = variance.measured(config, Given(array, entry)).data.variance
    assert found == pytest.approx(entry.unit(array).astype(np.float64).var(), rel=1e-4)


def test_only_whole_numbers_have_bits_per_dim(given):
    bits = {}
    for dtype in ("uint16", "float32"):
        config = given(*scaled(dtype, 0, 1000), likelihood="gaussian", sigma=0.1)
        ready, state, _ = trained(config)
        figures = heldout.figures(ready.config, ready.mesh, ready.opened.heldout)(state)
        bits[dtype] = figures.get("bits_per_dim")
        elbo = float(figures["elbo"])
    assert bits["float32"] is None
    assert bits["uint16"] == pytest.approx((-elbo / 256 + np.log(1000)) / np.log(2), rel=1e-4)


@pytest.mark.parametrize("shape", [(8, 8, 2), (8, 8, 5), (8, 24, 3)])
def test_any_number_of_channels_and_oblong_images_are_trained_on_and_drawn(given, shape):
    array = RNG.integers(0, 256, (40, *shape), np.uint8)
    config = given(array, jax.ShapeDtypeStruct(shape, np.uint8))
    found = drawn(*trained(config)[:2], "reconstructions", "traversals", "interpolations")
    assert {image.shape[-1] for image in found} == {1 if shape[-1] == 2 else 3}


@pytest.mark.parametrize("channels", [1, 3])
def test_signals_are_trained_on_and_drawn_as_curves(given, channels):
    array = RNG.random((40, 32, 1, channels), np.float32)
    config = given(array, datasets.Pixels((32, 1, channels), "float32", 0, 1))
    found = drawn(*trained(config)[:2], "reconstructions", "samples", "traversals")
    assert {image.shape[-1] for image in found} == {channels}
    assert found[0].shape[1] > 4 * 192  # four held-out examples, side by side


def test_codes_of_signals_and_of_oblong_images_are_drawn(given):
    shape = (16, 1, 1)
    array = RNG.integers(0, 256, (40, *shape), np.uint8)
    image = jax.ShapeDtypeStruct(shape, np.uint8)
    config = given(array, image, variant=vq_vae, downsampling=1, variance=0.1)
    assert drawn(*trained(config)[:2], "code_maps")[0].shape[2] == 3


@pytest.mark.parametrize(
    ("dtype", "shape", "ends", "words"),
    [
        ("int32", (4, 4, 1), (0, 1), "has images of int32: convert them to uint8, uint16"),
        ("float64", (4, 4, 1), (0, 1), "has images of float64: convert"),
        ("bool", (4, 4, 1), (0, 1), "has images of bool: convert"),
        ("float32", (4, 4, 1), (None, None), "does not say which range becomes [0, 1]"),
        ("float32", (4, 4, 1), (1, 1), "states the range 1 … 1 of float32"),
        ("float32", (4, 4, 1), (0, float("nan")), "states the range 0 … nan"),
        ("float32", (4, 4, 1), (-3e38, 3e38), "states the range -3e+38 … 3e+38"),
        ("float16", (4, 4, 1), (0, 1e6), "states the range 0 … 1e+06 of float16"),
        ("uint8", (4, 4, 1), (0, 256), "states the range 0 … 256 of uint8"),
        ("uint16", (4, 4, 1), (-1, 256), "states the range -1 … 256 of uint16"),
        ("uint8", (4, 4), (None, None), "[H, W, 1] for grey, [L, 1, C] for signals"),
        ("uint8", (4, 4, 4, 1), (None, None), "volumes cannot be trained on: use their slices"),
        ("uint8", (4, 0, 1), (None, None), "has images of shape [4, 0, 1]"),
    ],
)
def test_what_no_model_can_train_on_is_refused_before_anything_is_read(
    given, dtype, shape, ends, words
):
    config = given(np.zeros(0), datasets.Pixels(shape, dtype, *ends))
    with pytest.raises(errors.InputError) as caught:
        setup.prepare(config, devices=jax.devices()[:1], open_data=False)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((40, 8, 8, 1), np.uint8), "promises float32 [40, 8, 8, 1]"),
        (np.zeros((40, 8, 9, 1), np.float32), "with `image` of float32 [40, 8, 9, 1]"),
        (np.full((40, 8, 8, 1), np.nan, np.float32), "example 0 has the value nan at [0, 0, 0]"),
        (np.full((40, 8, 8, 1), -1, np.float32), "the value -1.0 at [0, 0, 0], outside its range"),
    ],
)
def test_a_source_that_breaks_the_promise_of_its_spec_is_refused(given, array, words):
    config = given(array, datasets.Pixels((8, 8, 1), "float32", 0, 1))
    with pytest.raises(errors.InputError) as caught:
        datasets.load(config)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_bytes_too_must_be_as_the_spec_says(given):
    array = np.zeros((40, 8, 8, 1), np.int64)
    config = given(array, jax.ShapeDtypeStruct((8, 8, 1), np.uint8))
    with pytest.raises(errors.InputError, match="`image` of int64"):
        datasets.load(config)


def test_a_value_out_of_range_that_is_met_later_ends_the_run(given):
    array = np.zeros((200, 8, 8, 1), np.float32)
    array[[1, 5, 7], 1, 2, 0] = np.inf, np.nan, 2  # not in the sample of 64
    config = given(array, datasets.Pixels((8, 8, 1), "float32", 0, 1))
    ready = setup.prepare(config, devices=jax.devices()[:1])
    batches = batching.ahead(ready.opened.train, ready.config, ready.mesh, first_step=0)
    with pytest.raises(errors.InputError, match=r"example \d has the value .* at \[1, 2, 0\]"):
        for _, _ in zip(batches, range(30), strict=False):
            pass


def test_two_sides_are_refused_if_the_data_set_has_its_own_size():
    config = small(beta_vae.get_config("sprites,smoke"), image_size=(32, 96))
    with pytest.raises(
        errors.InputError, match=r"=\(32, 96\): the images of .* size, 64×64: leave"
    ):
        setup.prepare(config, devices=jax.devices()[:1], open_data=False)


def test_binarizing_is_for_bytes(given):
    config = given(*scaled("uint16", 0, 65535), binarize=True)
    with pytest.raises(errors.InputError, match="binarize=True rounds bytes of 0 … 255, and"):
        datasets.load(config)


def test_the_fingerprint_names_the_range(given):
    array, entry = scaled("uint16", 0, 4095)
    found = datasets.fingerprint(datasets.load(given(array, entry)).train)
    assert found["range of pixels"] == "uint16 of 0 … 4095"


@pytest.mark.parametrize("suffix", ["tiff", "png"])
def test_a_folder_of_tiff_or_16_bit_png_in_oblong_size_is_trained_on(tmp_path, suffix):
    depths = RNG.integers(0, 65536, (12, 12, 40), np.uint16)
    depths[:, 0, 0] = 65535
    for number, grey in enumerate(depths):
        image, path = Image.fromarray(grey), tmp_path / "images" / f"{number}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        if suffix == "tiff":  # of several pages the first is used
            image.save(path, save_all=True, append_images=[Image.fromarray(grey // 2)])
        else:
            image.save(path)
    config = beta_vae.get_config("image_folder,smoke")
    config = small(config, path=str(tmp_path / "images"), image_size=(8, 24), channels=1)
    ready, state, _ = trained(config)
    assert ready.example["image"].shape == (8, 24, 1)
    assert drawn(ready, state, "reconstructions")
    config = config.copy_and_resolve_references()
    config.data.image_size = (12, 36)  # of this height, so they are only cut
    image = datasets.load(config).heldout.read(np.arange(1))["image"][0, ..., 0]
    assert any(np.array_equal(image, grey[:, 2:38] >> 8) for grey in depths)
