import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import beta_vae, vq_vae
from pipeline import datasets, generate
from pipeline.outputs import array_file, encoded_files, encodings, saved_state
from pipeline.runtime import errors, run_config
from pipeline.training import batching, evaluation, setup
from tests.support import commands, runs
from tests.support.environment import OPTIMIZATION
from tests.support.processes import ROOT, free_port

NUM = {"heldout": 150, "train": 70}


def make_config(**changes):
    config = vq_vae.get_config("smoke")
    config.model.hidden = (16,)
    config.model.quantizer.num_codes = 300
    config.data.heldout_examples, config.data.train_examples = NUM["heldout"], NUM["train"]
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return runs.save_run(tmp_path_factory.mktemp("vq"), make_config(), (None, None))


@pytest.fixture(scope="module")
def straight(workdir):
    """Returns the checkpoint's state, the held-out examples and their codes, in one computation."""
    config = make_config()
    example = datasets.example_spec(config)
    ready = setup.prepare_evaluation(config, devices=jax.devices()[:1])
    _, state = saved_state.restore(workdir, "2", ready)
    batch = batching.read(datasets.load(config).heldout, np.arange(NUM["heldout"]), config)
    encode = evaluation.make_method(config, example, "encode")
    return state, batch, np.asarray(encode(state, batch["image"]))


def write(workdir, out, num_devices, monkeypatch, split="heldout"):
    devices = jax.devices()[:num_devices]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    arguments = [f"--workdir={workdir}", "--step=2", f"--out={out}", f"--tokens={split}"]
    return read(generate.run(generate.parse(["generate", *arguments])), split)


def read(folder, split="heldout"):
    """Returns the description, and each array joined from its memory-mapped shards."""
    about = json.loads((folder / f"tokens-{split}.json").read_text())
    arrays = {}
    for name, row in about["arrays"].items():
        parts = [np.load(folder / s["files"][name], mmap_mode="r") for s in about["shards"]]
        for part, shard in zip(parts, about["shards"], strict=True):
            assert part.shape == (shard["stop"] - shard["first"], *row["shape"])
            assert part.dtype == row["dtype"]
        arrays[name] = np.concatenate(parts)
    assert about["shards"][0]["first"] == 0
    assert about["shards"][-1]["stop"] == about["num_examples"]
    return about, arrays


@pytest.mark.parametrize("num_devices", [1, 4])
def test_the_codes_are_those_of_the_model_on_any_number_of_devices(
    workdir, straight, tmp_path, monkeypatch, num_devices
):
    state, batch, codes = straight
    _, arrays = write(workdir, tmp_path, num_devices, monkeypatch)
    np.testing.assert_array_equal(arrays["tokens"], codes)
    assert len(np.unique(codes)) > 10
    np.testing.assert_array_equal(arrays["factors"], batch["factors"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "tokens-heldout-00000-of-00001.npy",
        "tokens-heldout-factors-00000-of-00001.npy",
        "tokens-heldout.json",
    ]
    config, example = make_config(), datasets.example_spec(make_config())
    decode, reconstruct = (
        evaluation.make_method(config, example, name) for name in ("decode", "reconstruct")
    )
    decoded = decode(state, arrays["tokens"].astype(np.int32))
    np.testing.assert_array_equal(decoded, reconstruct(state, {"image": batch["image"]}))


def test_the_description_says_what_a_prior_needs(workdir, tmp_path, monkeypatch, capsys):
    about, _ = write(workdir, tmp_path, 2, monkeypatch, "train")
    assert about["quantizer"].pop("name") == "vq"
    del about["quantizer"]
    assert about == {
        "step": 2,
        "split": "train",
        "num_examples": 70,
        "num_codes": 300,
        "grid": [16, 16],
        "dtype": "uint16",
        "arrays": {
            "tokens": {"shape": [16, 16], "dtype": "uint16"},
            "factors": {
                "shape": [6],
                "dtype": "int32",
                "num_classes": [1, 3, 6, 40, 32, 32],
                "class_names": {"color": ["white"], "shape": ["square", "ellipse", "heart"]},
            },
        },
        "shards": [
            {
                "first": 0,
                "stop": 70,
                "files": {
                    "tokens": "tokens-train-00000-of-00001.npy",
                    "factors": "tokens-train-factors-00000-of-00001.npy",
                },
            }
        ],
        "data": {"name": "sprites", "image_shape": [64, 64, 1]},
        "seed": 0,
    }
    assert "image 70/70" in capsys.readouterr().out


def test_two_processes_write_what_one_writes(workdir, straight, tmp_path, monkeypatch):
    port = free_port()
    environment = os.environ | {"XLA_FLAGS": OPTIMIZATION, "NPROC": "2"}
    arguments = [f"--workdir={workdir}", "--tokens=heldout", "--step=latest", f"--out={tmp_path}"]
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
    assert outputs[0][0].splitlines()[-1] == str(tmp_path / "tokens-heldout.json")
    assert "tokens" not in outputs[1][0]
    about, arrays = read(tmp_path)
    assert [(shard["first"], shard["stop"]) for shard in about["shards"]] == [(0, 75), (75, 150)]
    np.testing.assert_array_equal(arrays["tokens"], straight[2])
    np.testing.assert_array_equal(arrays["factors"], straight[1]["factors"])
    # One process must then leave no shard of the earlier two.
    _, again = write(workdir, tmp_path, 2, monkeypatch)
    np.testing.assert_array_equal(again["tokens"], arrays["tokens"])
    assert len(list(tmp_path.iterdir())) == 3


def test_residual_codes_have_an_axis_of_their_own(tmp_path, monkeypatch):
    changes = {"model.quantizer.name": "residual_vq", "model.quantizer.num_quantizers": 2}
    config = make_config(**{"model.quantizer.num_codes": 16} | changes)
    runs.save_run(tmp_path / "run", config, (None, None))
    about, arrays = write(tmp_path / "run", tmp_path / "out", 1, monkeypatch, "train")
    assert arrays["tokens"].shape == (70, 16, 16, 2)
    assert (about["grid"], about["dtype"]) == ([16, 16], "uint8")


@pytest.mark.parametrize(
    ("num_codes", "dtype"),
    [(256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.int32)],
)
def test_the_smallest_type_that_holds_every_code(num_codes, dtype):
    assert encodings.smallest(num_codes) == dtype
    assert np.iinfo(dtype).max >= num_codes - 1


def test_the_entries_of_the_data_set_lie_beside_the_encodings():
    codes = {"codes": jax.ShapeDtypeStruct((4, 4), np.uint8)}
    rows = encoded_files.rows({"image": None, "label": datasets.label(10)}, codes)
    assert set(rows) == {"codes", "label"}
    assert (rows["label"].shape, rows["label"].dtype) == ((), np.int32)


def test_shards_follow_each_other_whatever_their_number():
    shards = encoded_files.shards("tokens-train", 10, 4, {"tokens": None}, main="tokens")
    assert [shard.first for shard in shards[1:]] == [shard.stop for shard in shards[:-1]]
    assert sorted(shard.stop - shard.first for shard in shards) == [2, 2, 3, 3]
    assert shards[3].files == {"tokens": "tokens-train-00003-of-00004.npy"}


def test_a_failure_leaves_no_half_file_and_no_description(workdir, tmp_path, monkeypatch):
    write(workdir, tmp_path, 1, monkeypatch)

    def full(self, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(array_file.ArrayFile, "append", full)
    with pytest.raises(OSError, match="No space"):
        write(workdir, tmp_path, 1, monkeypatch)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_is_not_there_is_named(tmp_path):
    arrays = {"tokens": jax.ShapeDtypeStruct((4, 4), np.uint8)}
    shards = encoded_files.shards("tokens-train", 10, 2, arrays, main="tokens")
    with pytest.raises(errors.InputError, match="lacks tokens-train-00000-of"):
        encoded_files.describe(tmp_path / "tokens-train.json", arrays, shards, {}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tokens=test"], "--tokens=test is no split: choose train or heldout"),
        (["--tokens="], "--tokens= is no split"),
        (["--tokens=train", "--num=3"], "--num=3 is for images: leave it out with --tokens=train"),
        (["--tokens=train", "--labels=3"], "--labels=3 is for images"),
        (["--num_processes=2"], "--num_processes=2 goes only with --tokens"),
        (
            ["--tokens=train", "--process_id=1"],
            "--coordinator, --num_processes and --process_id go",
        ),
        (["--tokens=train", "--step=9"], "--step=9 is no checkpoint of this run"),
    ],
)
def test_a_mistake_is_one_line(workdir, capsys, monkeypatch, arguments, words):
    assert words in commands.refusal(
        generate.main, capsys, monkeypatch, f"--workdir={workdir}", *arguments
    )


def test_a_model_without_codes_is_refused(tmp_path, capsys, monkeypatch):
    run_config.save(beta_vae.get_config("smoke"), tmp_path)
    line = commands.refusal(
        generate.main, capsys, monkeypatch, f"--workdir={tmp_path}", "--tokens=train"
    )
    assert "the run's model 'beta_vae' has no codes" in line
