"""Codes with their decoder and distortion, and latents, as `generate` writes them."""

import hashlib
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from scipy import special

import pipeline
from configs import beta_vae, conditional_vae, vq_vae
from pipeline import datasets, generate, models
from pipeline.nn import weights
from pipeline.outputs import model_functions
from pipeline.runtime import run_config
from pipeline.training import batching, example_file
from tests.support import commands, runs
from tests.support.environment import OPTIMIZATION
from tests.support.processes import ROOT, free_port

NUM = {"heldout": 150, "train": 70}


def saved(workdir, config, **changes):
    config.model.hidden, config.checkpoint.best_metric = (16,), "elbo"
    config.data.heldout_examples, config.data.train_examples = NUM["heldout"], NUM["train"]
    config.batch_size = 50
    config.update_from_flattened_dict(changes)
    return runs.save_run(workdir, config)


@pytest.fixture(scope="module")
def likely(tmp_path_factory):
    """A VQ-VAE whose reconstruction is in nats."""
    changes = {"model.likelihood": "bernoulli", "model.quantizer.num_codes": 300}
    return saved(tmp_path_factory.mktemp("likely"), vq_vae.get_config("smoke"), **changes)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("plain"), beta_vae.get_config("smoke"))


def write(workdir, out, flag, num_devices, monkeypatch):
    """Writes and returns, for each split, the description and the joined arrays."""
    devices = jax.devices()[:num_devices]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    generate.run(generate.parse(["generate", f"--workdir={workdir}", f"--out={out}", flag]))
    return {path.stem: read(path) for path in sorted(out.glob("*.json"))}


def read(path):
    about, arrays = json.loads(path.read_text()), {}
    for name, row in about["arrays"].items():
        parts = [np.load(path.parent / shard["files"][name]) for shard in about["shards"]]
        arrays[name] = np.concatenate(parts)
        assert (list(arrays[name].shape[1:]), arrays[name].dtype) == (row["shape"], row["dtype"])
        assert len(arrays[name]) == about["num_examples"]
    return about, arrays


def images_of(workdir, split):
    config = run_config.load(workdir)
    return batching.read(getattr(datasets.load(config), split), np.arange(NUM[split]), config)


@pytest.fixture
def both(likely, tmp_path, monkeypatch):
    return write(likely, tmp_path / "out", "--codes=all", 4, monkeypatch)


def test_both_splits_have_the_codes_of_the_model_and_one_decoder(both, likely, tmp_path):
    model = pipeline.load(likely)
    assert set(both) == {"codes-heldout", "codes-train"}
    for split, num in NUM.items():
        about, arrays = both[f"codes-{split}"]
        batch = images_of(likely, split)
        np.testing.assert_array_equal(arrays["codes"], model.encode(batch["image"]))
        np.testing.assert_array_equal(arrays["factors"], batch["factors"])
        assert (about["num_examples"], about["dtype"], about["step"]) == (num, "uint16", 1)
        assert about["shards"][0]["files"]["codes"] == f"codes-{split}-00000-of-00001.npy"
    content = (tmp_path / "out" / "decoder.safetensors").read_bytes()
    decoder = {"file": "decoder.safetensors", "sha256": hashlib.sha256(content).hexdigest()}
    assert all(about["decoder"] == decoder for about, _ in both.values())


def test_each_code_has_its_distortion_in_nats(both, likely):
    model = pipeline.load(likely)
    for split in NUM:
        about, arrays = both[f"codes-{split}"]
        assert (about["bin_width"], about["num_dims"]) == (1.0, 64 * 64)
        image = images_of(likely, split)["image"] / 255
        shown = model.decode(arrays["codes"]).astype(np.float64)
        exact = -(special.xlogy(image, shown) + special.xlog1py(1 - image, -shown))
        np.testing.assert_allclose(arrays["distortion"], exact.sum(axis=(1, 2, 3)), rtol=1e-5)


def test_the_decoder_is_all_that_decoding_needs(both, likely, tmp_path):
    arrays, about = weights.read(tmp_path / "out" / "decoder.safetensors")
    assert about["config"] == run_config.flatten(run_config.load(likely))
    assert (about["step"], about["run"]) == (1, likely.name)
    parts = {tuple(name.split(".")[:2]) for name in arrays}
    assert parts == {("params", "decoder"), ("stats", "quantizer")}
    # A model with any other values in its encoder decodes the same.
    model = pipeline.load(likely)
    example = example_file.from_plain(about["example"])
    assert example_file.plain(example) == example_file.plain(datasets.example_spec(model.config))
    _, init = models.make(model.config, example)
    fresh = dict(zip(("params", "stats"), init(), strict=True))
    named = {**weights.named(fresh), **arrays}
    params = weights.like(fresh, named, source="the file")
    codes = both["codes-train"][1]["codes"][:5].astype(np.int32)
    decode = model_functions.make(model.config, example).decode
    np.testing.assert_allclose(decode(params, codes), model.decode(codes), atol=1e-6)


def test_one_split_after_the_other_has_the_same_decoder_and_one_device_the_same_arrays(
    both, likely, tmp_path, monkeypatch
):
    out = tmp_path / "again"
    write(likely, out, "--codes=train", 1, monkeypatch)
    found = write(likely, out, "--codes=heldout", 1, monkeypatch)
    for name, (about, arrays) in both.items():
        assert found[name][0] == about
        for key, values in arrays.items():
            np.testing.assert_array_equal(found[name][1][key], values)


def test_an_error_in_units_of_the_variance_is_no_distortion(tmp_path, monkeypatch):
    config = vq_vae.get_config("smoke")
    workdir = saved(tmp_path / "run", config, **{"model.quantizer.num_codes": 16})
    about, arrays = write(workdir, tmp_path / "out", "--codes=train", 1, monkeypatch)["codes-train"]
    assert set(arrays) == {"codes", "factors"}
    assert not {"bin_width", "num_dims"} & set(about)


def test_tokens_are_what_older_versions_wrote(likely, both, tmp_path, monkeypatch):
    out = tmp_path / "old"
    about, arrays = write(likely, out, "--tokens=train", 1, monkeypatch)["tokens-train"]
    np.testing.assert_array_equal(arrays["tokens"], both["codes-train"][1]["codes"])
    assert set(arrays) == {"tokens", "factors"}
    assert "decoder" not in about
    assert {path.suffix for path in out.iterdir()} == {".json", ".npy"}


@pytest.mark.parametrize("num_devices", [1, 3])
def test_latents_are_the_moments_of_the_posterior(plain, tmp_path, monkeypatch, num_devices):
    found = write(plain, tmp_path, "--latents=all", num_devices, monkeypatch)
    model = pipeline.load(plain)
    for split in NUM:
        about, arrays = found[f"latents-{split}"]
        batch = images_of(plain, split)
        mean, log_variance = model.encode(batch["image"])
        np.testing.assert_array_equal(arrays["mean"], mean)
        np.testing.assert_array_equal(arrays["log_variance"], log_variance)
        np.testing.assert_array_equal(arrays["factors"], batch["factors"])
        assert about["latent_dim"] == 10
        assert about["arrays"]["mean"] == {"shape": [10], "dtype": "float32"}
    assert sorted(path.name for path in tmp_path.glob("*train*")) == [
        "latents-train-factors-00000-of-00001.npy",
        "latents-train-log_variance-00000-of-00001.npy",
        "latents-train-mean-00000-of-00001.npy",
        "latents-train.json",
    ]


def test_latents_of_a_conditional_model_see_the_labels(tmp_path, monkeypatch):
    workdir = saved(tmp_path / "run", conditional_vae.get_config("sprites,smoke"))
    found = write(workdir, tmp_path / "out", "--latents=train", 2, monkeypatch)["latents-train"][1]
    batch, model = images_of(workdir, "train"), pipeline.load(workdir)
    mean, _ = model.encode(batch["image"], labels=batch["factors"])
    np.testing.assert_array_equal(found["mean"], mean)
    assert (mean != model.encode(batch["image"])[0]).any()


def test_two_processes_write_both_splits_as_one_does(plain, tmp_path, monkeypatch):
    port = free_port()
    environment = os.environ | {"XLA_FLAGS": OPTIMIZATION, "NPROC": "2"}
    out = tmp_path / "two"
    arguments = [f"--workdir={plain}", "--latents=all", f"--out={out}"]
    together = [
        subprocess.Popen(
            [sys.executable, "-m", "pipeline.generate", *arguments,
             f"--coordinator=127.0.0.1:{port}", "--num_processes=2", f"--process_id={i}"],
            cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for i in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=120) for process in together]
    assert [process.returncode for process in together] == [0, 0], outputs
    names = ["latents-train.json", "latents-heldout.json"]
    assert outputs[0][0].splitlines()[-2:] == [str(out / name) for name in names]
    alone = write(plain, tmp_path / "one", "--latents=all", 2, monkeypatch)
    for path in sorted(out.glob("*.json")):
        about, arrays = read(path)
        assert len(about["shards"]) == 2
        for name, values in arrays.items():
            np.testing.assert_array_equal(values, alone[path.stem][1][name])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--codes=test"], "--codes=test is no split: choose train, heldout or all"),
        (["--latents="], "--latents= is no split: choose train, heldout or all"),
        (["--tokens=all"], "--tokens=all is no split: choose train or heldout"),
        (["--codes=all", "--tokens=train"], "--tokens=train and --codes=all exclude each other"),
        (["--latents=all", "--codes=all"], "--codes=all and --latents=all exclude each other"),
        (["--latents=all", "--num=3"], "--num=3 is for images: leave it out with --latents=all"),
        (["--codes=all"], "--codes: the run's model 'beta_vae' has no codes: use the --workdir of"),
    ],
)
def test_a_mistake_is_one_line(plain, capsys, monkeypatch, arguments, words):
    assert words in commands.refusal(
        generate.main, capsys, monkeypatch, f"--workdir={plain}", *arguments
    )


def test_latents_of_a_model_with_codes_are_refused(likely, capsys, monkeypatch):
    line = commands.refusal(
        generate.main, capsys, monkeypatch, f"--workdir={likely}", "--latents=train"
    )
    assert "--latents: the run's model 'vq_vae' has no Gaussian posterior: use the --wor" in line
