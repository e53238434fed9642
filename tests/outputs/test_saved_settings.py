"""What a command needs of a saved run: no data where none are used, and a place to write."""

import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from configs import beta_vae, conditional_vae
from pipeline import datasets, evaluate, generate
from pipeline.datasets import image_folder
from pipeline.runtime import errors, run_config
from pipeline.training import example_file
from tests.support.commands import refusal
from tests.support.runs import save_run


@pytest.fixture
def moved(tmp_path):
    """Returns the folders of a run on images that have moved, and of the images."""
    for name in "abcd":
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            colour = (60 * number, 10, 10)
            Image.new("RGB", (8, 8), colour).save(tmp_path / "images" / name / f"{number}.png")
    config = conditional_vae.get_config("image_folder")
    config.update_from_flattened_dict({
        "data.path": str(tmp_path / "images"), "data.image_size": 16, "model.network": "dense",
        "model.hidden": (4,), "batch_size": 2, "compute_dtype": "float32",
    })  # fmt: skip
    workdir = save_run(tmp_path / "run", config)
    example_file.write(datasets.example_spec(config), workdir)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    image_folder.layout.cache_clear()  # which lasts as long as the process
    return workdir, tmp_path / "elsewhere"


def run(command, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    return command.main()


def test_images_are_drawn_from_a_run_whose_data_have_moved(moved, monkeypatch):
    workdir, elsewhere = moved
    options = generate.parse(["command", f"--workdir={workdir}", "--labels=1,3", "--num=2"])
    found = next(generate.run(options).glob("*.npz"))
    with np.load(found) as file:
        assert file["images"].shape == (4, 16, 16, 3)
    given = f"--config.data.path={elsewhere}"
    assert run(generate, monkeypatch, f"--workdir={workdir}", given, "--num=1") == 0
    assert run(evaluate, monkeypatch, f"--workdir={workdir}", given, "--evals=heldout") == 0


def test_without_a_description_of_an_example_the_repair_is_named(moved, monkeypatch, capsys):
    workdir, _ = moved
    for text in ("", "[]", '{"image": 3}'):
        (workdir / "example.json").write_text(text)
        line = refusal(generate.main, capsys, monkeypatch, f"--workdir={workdir}")
        assert "--config.data.path" in line


def test_an_example_is_described_with_its_classes(tmp_path):
    config = beta_vae.get_config()
    example = datasets.example_spec(config)
    example_file.write(example, tmp_path)
    config.data.name, config.data.path = "image_folder", str(tmp_path / "missing")
    found = example_file.of_run(config, tmp_path)
    assert found.keys() == example.keys()
    for name, entry in example.items():
        assert (found[name].shape, found[name].dtype) == (entry.shape, entry.dtype)
        if isinstance(entry, datasets.Classes):
            assert (found[name].names, found[name].num_classes) == (entry.names, entry.num_classes)


def test_a_field_that_must_stay_the_runs_is_refused(moved):
    options = ["command", f"--workdir={moved[0]}", "--config.seed=3"]
    with pytest.raises(errors.InputError, match=r"config\.seed is 3, was 0"):
        generate.run(generate.parse(options))


def test_a_run_that_cannot_be_written_names_the_flag_for_another_folder(moved, monkeypatch, capsys):
    workdir, elsewhere = moved
    shutil.rmtree(workdir / "reports", ignore_errors=True)
    (workdir / "reports").write_text("")  # as a folder without permission, also for root
    for command in (generate, evaluate):
        given = (f"--workdir={workdir}", f"--config.data.path={elsewhere}")
        assert run(command, monkeypatch, *given) == 1
        assert "; --out=DIR names another folder" in capsys.readouterr().err
    out = workdir.parent / "out"
    assert run(generate, monkeypatch, f"--workdir={workdir}", "--num=1", f"--out={out}") == 0
    assert run_config.load(workdir).seed == 0
