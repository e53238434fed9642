"""Image quality over whole held-out sets: the figures, their names, and what is left out."""

import json
import types

import jax
import numpy as np
import pytest
import safetensors.numpy
from skimage import metrics

from configs import beta_vae, conditional_vae, vq_vae
from pipeline import datasets
from pipeline.display import figures
from pipeline.evals import image_quality
from pipeline.evals.quality import frechet, measures
from pipeline.mesh import sharding
from pipeline.nn import inception, perceptual
from pipeline.runtime import errors
from pipeline.training import batching, evaluation, step
from tests.support import torch_references

NUM = 21  # held-out images: two batches and a part of one
DISTANCE = frechet.distance
LEFT_OUT = "heldout/image_quality_left_out"


def make_config(module=beta_vae, **changes):
    config = module.get_config("sprites,smoke")
    config.image_quality.num_examples, config.image_quality.rows = NUM, 8
    config.image_quality.lpips = ("alex",)
    if module is conditional_vae:
        config.model.conditions = ("factors",)
    config.update_from_flattened_dict(changes)
    return config


def mesh_of(devices):
    return sharding.make_mesh({"data": -1}, devices=jax.devices()[:devices])


def evaluated(config, *, devices=1):
    mesh = mesh_of(devices)
    state = step.create_state(config, datasets.example_spec(config), mesh_of(1))
    state = jax.device_put(state, sharding.replicated(mesh))
    return dict(image_quality.make(config, mesh, datasets.load(config).heldout)(state))


def left_out(found):
    """Returns the names and reasons of what is left out."""
    rows = found[LEFT_OUT].splitlines()[2:]
    return dict([cell.strip() for cell in row.strip("|").split("|")] for row in rows)


@pytest.fixture(scope="module")
def found():
    return evaluated(make_config())


def test_figures_are_means_over_the_images_as_a_file_would_have_them(found):
    config = make_config()
    source, example = datasets.load(config).heldout, datasets.example_spec(config)
    state = step.create_state(config, example, mesh_of(1))
    batch = batching.first_images(source, config, NUM)
    outputs = evaluation.make_method(config, example, "reconstruct")(state, batch)
    pairs = list(zip(batch["image"], np.rint(np.asarray(outputs) * 255).astype("u1"), strict=True))
    expected = {
        "mse": [metrics.mean_squared_error(a / 255, b / 255) for a, b in pairs],
        "mae": [np.abs(a / 255 - b / 255).mean() for a, b in pairs],
        "psnr": [metrics.peak_signal_noise_ratio(a, b) for a, b in pairs],
        "ssim": [
            metrics.structural_similarity(
                *(image[..., 0] for image in pair),
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            for pair in pairs
        ],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(
            found[f"heldout/{name}"], np.mean(values), rtol=1e-5, atol=1e-6, err_msg=name
        )
    clean, noisy = (np.float32([pair[k] for pair in pairs]) / 255 for k in (0, 1))
    lpips = perceptual.Perceptual("alex")(clean, noisy)
    np.testing.assert_allclose(found["heldout/lpips_alex"], np.mean(lpips), rtol=1e-5)


def test_the_frechet_distances_are_those_of_all_images_and_samples(found):
    config = make_config()
    source, example = datasets.load(config).heldout, datasets.example_spec(config)
    state, weights = step.create_state(config, example, mesh_of(1)), perceptual.load("alex")
    batch = batching.first_images(source, config, NUM)
    drawn = image_quality.keys(config.seed, 0, NUM)
    sets = [batch["image"] / np.float32(255)]
    for name, argument in (("reconstruct", batch), ("sample", drawn)):
        outputs = evaluation.make_method(config, example, name)(state, argument)
        sets.append(np.rint(np.asarray(outputs) * 255).astype("f4") / 255)
    of_images = jax.jit(measures.alexnet_features)
    held_out, reconstructions, samples = (
        frechet.of(np.asarray(of_images(weights, images))) for images in sets
    )
    for name, moments in (
        (f"frechet_alexnet_reconstructions_{NUM}", reconstructions),
        (f"frechet_alexnet_{NUM}", samples),
    ):
        expected = frechet.distance(held_out, moments)
        np.testing.assert_allclose(found[f"heldout/{name}"], expected, rtol=1e-4)
        assert figures.of(f"heldout/{name}").direction == "lower"
    assert left_out(found).keys() == {"ms_ssim", "fid"}
    assert not [name for name in found if "fid_" in name]


@pytest.mark.parametrize("module", [beta_vae, conditional_vae])
def test_the_bits_depend_on_no_mesh_and_no_batch(module, found):
    one = found if module is beta_vae else evaluated(make_config(module))
    three = evaluated(make_config(module, eval_batch_size=12, batch_size=24), devices=3)
    assert one == three and all(np.isfinite(v) for v in one.values() if v is not one[LEFT_OUT])


def test_every_figure_has_a_row_and_the_number_of_images_is_a_part_of_its_name(found):
    for tag in found:
        row = figures.of(tag)
        assert row.text and row.needs == "image_quality" and row.name == tag.partition("/")[2]
    assert figures.of("heldout/fid_10000").text == figures.BY_NAME["fid_N"].text
    assert figures.of("heldout/rfid_50000").direction == "lower"
    assert figures.of("heldout/other_10").text == ""


def test_random_codes_are_no_samples():
    found = evaluated(make_config(vq_vae))
    assert "heldout/psnr" in found and f"heldout/frechet_alexnet_{NUM}" not in found
    assert f"heldout/frechet_alexnet_reconstructions_{NUM}" in found
    assert left_out(found)["frechet_alexnet of samples"].startswith("Random codes, not a prior")


def with_arrays(folder, images, **changes):
    """Returns a config of the images [N, H, W, C], of which 6 are held out."""
    np.save(folder / "images.npy", images)
    config = make_config(**{"image_quality.frechet": False, "image_quality.num_examples": 0})
    config.data.name, config.data.path = "arrays", str(folder / "images.npy")
    config.data.heldout_examples, config.batch_size = 6, 2
    config.model.likelihood = "gaussian"
    config.update_from_flattened_dict(changes)
    return config


def stand_in(monkeypatch, config, outputs):
    """Lets `outputs(images in [0, 1])` be the reconstructions."""
    pixels = datasets.pixels_of(datasets.example_spec(config)["image"])

    def make_method(*_):
        return lambda state, batch: outputs(pixels.unit(batch["image"]))

    monkeypatch.setattr(image_quality.evaluation, "make_method", make_method)


def images_of(shape, low, high, dtype):
    clean = np.concatenate([torch_references.pair(shape)[0] for _ in range(4)])
    clean = low + (high - low) * clean
    return (np.rint(clean) if np.dtype(dtype).kind == "u" else clean).astype(dtype)


KINDS = [
    ((32, 32, 3), "uint8", 0, 255),
    ((31, 40, 1), "uint8", 0, 200),
    ((32, 32, 1), "uint16", 100, 4095),
    ((32, 32, 1), "float32", -1, 1),
]


@pytest.mark.parametrize(("shape", "dtype", "low", "high"), KINDS, ids=str)
def test_held_out_images_beside_themselves_are_perfect_in_every_dtype_and_range(
    tmp_path, monkeypatch, shape, dtype, low, high
):
    images = images_of(shape, low, high, dtype)
    config = with_arrays(tmp_path, images, **{"data.low": low * 1.0, "data.high": high * 1.0})
    config.image_quality.frechet = True
    stand_in(monkeypatch, config, lambda images: images)
    monkeypatch.setattr(image_quality.samples, "title", lambda config: "no samples here")
    found = evaluated(config)
    assert found["heldout/mse"] < 1e-13 and found["heldout/psnr"] == 100
    np.testing.assert_allclose(found["heldout/ssim"], 1, atol=1e-6)
    assert found["heldout/lpips_alex"] < 1e-9
    assert abs(found["heldout/frechet_alexnet_reconstructions_6"]) < 1e-6


@pytest.mark.parametrize(("shape", "dtype", "low", "high"), KINDS, ids=str)
def test_an_error_counts_in_units_of_the_datas_range(
    tmp_path, monkeypatch, shape, dtype, low, high
):
    images = images_of(shape, low, high, dtype)
    ends = {"data.low": low * 1.0, "data.high": high * 1.0, "image_quality.lpips": ()}
    config = with_arrays(tmp_path, images, **ends)
    # Rounding to the values of the data moves it to the nearest one.
    steps = 1e9 if dtype == "float32" else high - low
    stand_in(monkeypatch, config, lambda images: images + 0.01)
    found, shift = evaluated(config), np.round(0.01 * steps) / steps
    np.testing.assert_allclose(found["heldout/mae"], shift, rtol=1e-4)
    np.testing.assert_allclose(found["heldout/mse"], shift**2, rtol=2e-4)
    np.testing.assert_allclose(found["heldout/psnr"], -20 * np.log10(shift), rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((28, 28, 1), {"ms_ssim", "lpips_alex", "fid"}),
        ((10, 40, 3), {"ssim", "ms_ssim", "lpips_alex", "lpips_vgg", "fid"}),
        ((64, 64, 4), {"ms_ssim", "lpips_alex", "lpips_vgg", "frechet_alexnet", "fid"}),
        ((64, 1, 1), {"ssim", "ms_ssim", "lpips_alex", "lpips_vgg", "frechet_alexnet", "fid"}),
        ((200, 176, 3), {"fid"}),
    ],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_what_images_do_not_allow_is_left_out_by_name(shape, names):
    section = make_config(**{"image_quality.lpips": ("alex", "vgg")}).image_quality
    chosen = measures.choose(section, shape)
    made = chosen.pairs.keys() | chosen.features.keys()
    assert chosen.left_out.keys() == names and not made & names
    every = {"ssim", "ms_ssim", "lpips_alex", "lpips_vgg", "frechet_alexnet", "fid"}
    assert made == {"mae", "mse", "psnr"} | (every - names)
    assert all(chosen.left_out.values()) and chosen.weights.keys() == made


def test_a_signal_has_errors_and_no_structure(tmp_path):
    config = with_arrays(tmp_path, images_of((40, 1, 2), 0, 255, "uint8"))
    found = evaluated(config)
    assert found.keys() - {LEFT_OUT} == {f"heldout/{name}" for name in ("mae", "mse", "psnr")}
    assert "not 2" in left_out(found)["lpips_alex"]
    chosen = measures.choose(config.image_quality, (40, 1, 1))
    assert "these are signals: the images have 40 × 1" in chosen.left_out["lpips_alex"]


def test_without_the_extra_its_figures_are_left_out_and_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(perceptual, "PACKAGE", "no_such_package")
    found = evaluated(make_config())
    assert not [tag for tag in found if "lpips" in tag or "alexnet" in tag]
    for name in ("lpips_alex", "frechet_alexnet"):
        assert "pip install 'vae-pipeline&#91;perceptual&#93;'" in left_out(found)[name]
    scalars = {tag.removeprefix("heldout/"): 1.0 for tag in found}
    (text,) = image_quality.warnings(scalars)
    assert perceptual.INSTALL in text
    monkeypatch.undo()
    assert image_quality.warnings(scalars) == []


def of_few_features(first, second):
    """Returns the Fréchet distance by the first 64 features: that of all takes seconds."""
    few = [
        one._replace(mean=one.mean[:64], scatter=one.scatter[:64, :64]) for one in (first, second)
    ]
    return DISTANCE(*few)


def test_a_file_of_inceptions_weights_gives_fid(tmp_path, monkeypatch):
    monkeypatch.setattr(frechet, "distance", of_few_features)
    with np.load(torch_references.FILE) as kept:
        arrays = torch_references.random_weights(json.loads(str(kept["shapes"])))
    file = tmp_path / "inception.safetensors"
    safetensors.numpy.save_file(arrays, file)
    changes = {"image_quality.inception": str(file), "image_quality.rows": 2}
    config = make_config(**changes, **{"image_quality.num_examples": 3})
    config.image_quality.lpips, config.image_quality.frechet = (), False
    found = evaluated(config)
    assert {"heldout/fid_3", "heldout/rfid_3"} <= found.keys() and "fid" not in left_out(found)
    example = datasets.example_spec(config)
    batch = batching.first_images(datasets.load(config).heldout, config, 3)
    state, weights = step.create_state(config, example, mesh_of(1)), inception.load(file)
    outputs = evaluation.make_method(config, example, "reconstruct")(state, batch)
    features = [
        frechet.of(np.asarray(jax.jit(inception.features)(weights, images)))
        for images in (batch["image"] / np.float32(255), np.rint(outputs * 255) / np.float32(255))
    ]
    np.testing.assert_allclose(found["heldout/rfid_3"], frechet.distance(*features), rtol=1e-4)


def test_what_cannot_work_is_one_line(tmp_path, monkeypatch):
    for changes, says in (
        ({"image_quality.lpips": ("squeeze",)}, r"image_quality.lpips='squeeze' is unknown"),
        (
            {"image_quality.inception": str(tmp_path / "none")},
            r"^config.image_quality.inception: .*none is missing",
        ),
    ):
        with pytest.raises(errors.InputError, match=says):
            evaluated(make_config(**changes))
    codes = {"codes": jax.ShapeDtypeStruct((7, 7), np.int32)}
    monkeypatch.setattr(image_quality.datasets, "example_spec", lambda config: codes)
    with pytest.raises(errors.InputError, match="has no images to compare: take it out"):
        image_quality.make(make_config(), mesh_of(1), types.SimpleNamespace())
