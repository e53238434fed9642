"""Folders of codes as the data of a prior: what they hold, and what is refused."""

import json
import shutil

import numpy as np
import pytest

from configs import code_prior
from pipeline import datasets
from pipeline.runtime import errors
from tests.support import code_folders


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return code_folders.write(tmp_path_factory.mktemp("codes"), distortion=True)


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "codes")


def config_of(folder):
    config = code_prior.get_config()
    config.data.path, config.batch_size = str(folder), 8
    return config


def edited(folder, split="train", **fields):
    path = folder / f"codes-{split}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_split_reads_any_rows_across_its_files(folder):
    config = config_of(folder)
    splits = datasets.load(config)
    labels, codes = code_folders.codes_of(192, seed=len("train"))
    assert (len(splits.train), len(splits.heldout)) == (192, 64)
    rows = np.array([191, 0, 95, 96, 5, 96])
    found = splits.train.read(rows)
    np.testing.assert_array_equal(found["codes"], codes[rows])
    np.testing.assert_array_equal(found["label"], labels[rows])
    assert found["codes"].dtype == np.uint8 and found["distortion"].dtype == np.float32


def test_an_example_says_what_the_codes_become(folder):
    example = datasets.example_spec(config_of(folder))
    assert example["codes"].num_codes == code_folders.K
    assert example["codes"].config["model.name"] == "vq_vae"
    assert datasets.shown_pixels(example).shape == (16, 16, 1)
    assert example["label"] == datasets.label(code_folders.LABELS)
    assert example["distortion"].shape == ()


def damage_cut(folder):
    path = next(folder.glob("codes-train-codes-*"))
    path.write_bytes(path.read_bytes()[:-5])


def damage_codes(folder):
    path = next(folder.glob("codes-heldout-codes-*"))
    np.save(path, np.load(path) + np.uint8(code_folders.K))


def damage_dtype(folder):
    path = next(folder.glob("codes-heldout-codes-*"))
    np.save(path, np.load(path).astype(np.int32))


def damage_value(name, value):
    def damage(folder):
        path = next(folder.glob(f"codes-train-{name}-*"))
        array = np.load(path)
        array[3] = value
        np.save(path, array)

    return damage


def damage_decoder(folder):
    with open(folder / "decoder.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: shutil.rmtree(folder), "is missing: --config.data.path must be"),
        (lambda folder: (folder / "codes-heldout.json").unlink(), "codes-heldout.json is missing"),
        (
            lambda folder: (folder / "codes-train.json").rename(folder / "tokens-train.json"),
            "tokens-train.json is of --tokens and lacks the decoder",
        ),
        (lambda folder: (folder / "codes-train.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "codes-train.json").write_text("[]"), "cannot be read"),
        (lambda folder: edited(folder, shards=[]), "cannot be read"),
        (lambda folder: edited(folder, step=8), "differ in 'step'"),
        (lambda folder: edited(folder, num_codes=32), "differ in 'num_codes'"),
        (lambda folder: (folder / "decoder.safetensors").unlink(), "safetensors is missing"),
        (lambda folder: (folder / "decoder.safetensors").write_bytes(b"x"), "cannot be read"),
        (damage_decoder, "is not the decoder of these codes"),
        (damage_cut, "cannot be read"),
        (damage_codes, "has codes from 16 to 31, and the VQ-VAE has 16"),
        (damage_dtype, "and its description says uint8 [32, 4, 4]"),
        (lambda folder: next(folder.glob("*label*")).unlink(), "is missing"),
        (damage_value("label", code_folders.LABELS), "has 4 as label of row 3"),
        (damage_value("label", -1), "has -1 as label of row 3"),
        (damage_value("distortion", np.nan), "has nan as distortion of row 3"),
        (damage_value("distortion", np.inf), "has inf as distortion of row 3"),
    ],
)
def test_what_does_not_belong_together_is_one_line(folder, damage, says):
    damage(folder)
    with pytest.raises(errors.InputError) as caught:
        datasets.load(config_of(folder))
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("path", "says"),
    [("", "data.path is empty"), ("{}/codes-train.json", "is a file"), ("gs://b/c", "buckets")],
)
def test_only_a_folder_is_read(folder, path, says):
    config = config_of(folder)
    config.data.path = path.format(folder)
    with pytest.raises(errors.InputError, match=says):
        datasets.load(config)


def test_pixels_that_are_not_there_cannot_be_rounded(folder):
    config = config_of(folder)
    config.data.binarize = True
    with pytest.raises(errors.InputError, match=r"binarize=True rounds pixels, and .* has none"):
        datasets.load(config)
