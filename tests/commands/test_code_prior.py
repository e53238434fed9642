"""A prior from a VQ-VAE's run to its own samples, as the commands make it."""

import shutil

import jax
import numpy as np
import pytest

import pipeline
from pipeline import generate
from tests.support import code_folders, commands
from tests.support.commands import train
from tests.support.runs import assert_equal_trees, scalars, state

SMALL = ("--config.batch_size=16", "--config.model.width=16", "--config.deterministic_shards=2")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Returns a prior's run that was moved, after the folder of its codes was removed."""
    folder = tmp_path_factory.mktemp("prior")
    codes = code_folders.write(folder / "codes", distortion=True)
    train(folder / "run", f"--config.data.path={codes}", *SMALL, config="code_prior.py:smoke")
    shutil.rmtree(codes)
    return (folder / "run").rename(folder / "moved")


@pytest.fixture(scope="module")
def loaded(made):
    return pipeline.load(made)


def run(workdir, *arguments):
    folder = generate.run(generate.parse(["generate", f"--workdir={workdir}", *arguments]))
    with np.load(folder / "generated.npz") as file:
        return dict(file)


def test_it_generates_by_labels_without_the_vq_vae_and_its_codes(made, tmp_path):
    found = run(made, "--labels=0,2", "--num=3", f"--out={tmp_path / 'a'}")
    assert found["images"].shape == (6, 16, 16, 1) and found["images"].dtype == np.uint8
    np.testing.assert_array_equal(found["labels"], [0, 0, 0, 2, 2, 2])
    again = run(made, "--labels=0,2", "--num=3", f"--out={tmp_path / 'b'}", "--temperature=0")
    assert not np.array_equal(found["images"], again["images"])
    # At temperature 0 the keys do not matter.
    np.testing.assert_array_equal(again["images"][0], again["images"][1])


def test_in_python_it_samples_and_decodes_as_the_commands_do(made, loaded, tmp_path):
    assert loaded.image_shape == (16, 16, 1)
    found = run(made, "--labels=1", "--num=3", "--seed=4", f"--out={tmp_path / 'a'}")
    drawn = loaded.sample(3, seed=4, labels=1)
    np.testing.assert_array_equal(loaded.pixels.restored(drawn), found["images"])
    codes = np.arange(32).reshape(2, 4, 4) % code_folders.K
    vq = code_folders.model()
    np.testing.assert_allclose(loaded.decode(codes), vq.decode(codes), atol=1e-6)
    keys = jax.random.split(jax.random.key(0), 2)
    assert loaded.functions.sample(loaded.params, keys).shape == (2, 16, 16, 1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda model: model.encode(np.zeros((1, 16, 16, 1), np.uint8)), "has no encode"),
        (lambda model: model.decode(np.zeros((2, 4, 3), int)), r"takes \[N, 4, 4\]"),
        (lambda model: model.decode(np.full((2, 4, 4), 16)), "must lie between 0 and 15"),
        (lambda model: model.sample(2, labels=4), "is no class of label"),
        (lambda model: model.sample(2, top_p=2.0), "top_p=2.0 must be at most 1"),
        (lambda model: model.sample(2, temperature=-1), "temperature=-1.0 must be finite"),
        (lambda model: model.sample(2, top_k=1.5), "top_k=1.5 must be a whole number"),
    ],
)
def test_what_it_cannot_do_is_a_value_error(loaded, call, says):
    with pytest.raises(ValueError, match=says):
        call(loaded)


def test_labels_and_options_that_it_does_not_know_are_one_line(made, capsys, monkeypatch):
    for given, says in (
        ("--labels=7", "'7' is no class of label"),
        ("--guidance=-1", "guidance=-1.0 must be finite and not negative"),
        ("--codes=train", "has no codes"),
        ("--latents=train", "no Gaussian posterior"),
    ):
        text = commands.refusal(generate.main, capsys, monkeypatch, f"--workdir={made}", given)
        assert says in text


def test_it_resumes_bit_by_bit_on_other_devices(made, tmp_path):
    codes = code_folders.write(tmp_path / "codes", distortion=True)
    arguments = (f"--config.data.path={codes}", *SMALL)
    # A run that is prolonged keeps its schedules.
    rate = ("--config.optimizer.warmup_steps=1", "--config.optimizer.decay_steps=60")
    for devices, length in ((1, 20), (2, 60)):
        ends = f"--config.total_steps={length}"
        options = {"config": "code_prior.py:smoke", "devices": devices}
        train(tmp_path / "parts", *arguments, *rate, ends, **options)
    assert_equal_trees(state(tmp_path / "parts", 60), state(made, 60))
    assert scalars(tmp_path / "parts")["train/loss"] == scalars(made)["train/loss"]


def test_other_codes_are_noticed_when_a_run_resumes(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    longer = (f"--config.data.path={tmp_path / 'codes'}", *SMALL, "--config.total_steps=80")
    for changes in ({"num": (160, 64)}, {"num_codes": 32}):
        code_folders.write(tmp_path / "codes", distortion=True, **changes)
        _, err = train(tmp_path / "run", *longer, config="code_prior.py:smoke", code=2)
        assert err.startswith("error: the data are not those of the run") and err.count("\n") == 1
