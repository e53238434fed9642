"""The presets that every config accepts, and the contracts between the files."""

import importlib
import json
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import configs
from configs import beta_vae, capacity_vae, default
from pipeline import datasets
from pipeline.display import figures
from pipeline.runtime import config_file, errors, registry, run_config
from pipeline.training import step
from tests.support import code_folders, prepared_data

ROOT = Path(__file__).parents[2]
CONFIGS = {
    file.name: importlib.import_module(f"configs.{file.name}")
    for file in pkgutil.iter_modules(configs.__path__)
    if file.name not in config_file.HIDDEN and not file.ispkg
}


# A preset of data changes the same fields of every config: those of the variants show it.
OF_VARIANTS = sorted(CONFIGS.keys() & set(registry.names("models")))
PRESETS = [(name, presets) for name in OF_VARIANTS for presets in (*default.PRESETS, "mnist,smoke")]
PRESETS += [(name, presets) for name in CONFIGS for presets in ("", "smoke")]


@pytest.mark.parametrize(("name", "presets"), dict.fromkeys(PRESETS))
def test_every_config_makes_a_model_with_every_preset(tmp_path, name, presets):
    config = CONFIGS[name].get_config(presets)
    for animal in ("cat", "dog"):
        (tmp_path / animal).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / animal / "a.png")
    config.data.path = str(tmp_path)  # which image_folder lists
    if config.data.name == "prepared":
        config.data.path = str(tmp_path / "shards")
        prepared_data.make(tmp_path, tmp_path / "shards")
    if config.data.name == "arrays":
        np.save(tmp_path / "image.npy", np.zeros((4, 32, 32, 1), np.uint8))
        np.save(tmp_path / "label.npy", np.arange(4) % 2)
    if config.data.name == "codes":
        code_folders.write(tmp_path)
    run_config.check(config)
    example = datasets.example_spec(config)
    if (config.data.name == "codes") != (config.model.name == "code_prior"):
        with pytest.raises(errors.InputError, match=r"has no (codes|images), on which"):
            step.abstract_state(config, example)
        return
    assert step.abstract_state(config, example).step.shape == ()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_saved_config_is_read_back_as_it_was(name, tmp_path):
    config = CONFIGS[name].get_config("smoke")
    run_config.save(config, tmp_path)
    loaded = run_config.load(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.is_locked


def test_every_variant_has_a_config_of_its_name():
    assert set(registry.names("models")) <= CONFIGS.keys()
    for name in registry.names("models"):
        assert CONFIGS[name].get_config().model.name == name


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(errors.InputError, match=f"choose from {', '.join(default.PRESETS)}"):
        beta_vae.get_config("tiny")


def test_the_loop_and_the_step_know_no_variant():
    for name in ("loop.py", "step.py", "evaluation.py"):
        text = (ROOT / "pipeline" / "training" / name).read_text()
        assert not re.search(r"\b(beta|capacity|codebook|label)s?\b", text), name


def test_what_may_change_on_resuming_is_not_a_difference():
    config = beta_vae.get_config()
    saved = run_config.flatten(config)
    config.total_steps += 1
    config.log_every_steps += 1
    config.checkpoint.keep_newest += 1
    assert run_config.differences(saved, config) == []
    config.seed = 3
    assert run_config.differences(saved, config) == ["config.seed is 3, was 0"]


def test_a_field_that_an_older_run_lacks_has_its_default(tmp_path):
    config = beta_vae.get_config("smoke")
    run_config.save(config, tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["watchdog_seconds"], saved["mesh.fsdp"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert run_config.load(tmp_path).watchdog_seconds == config.watchdog_seconds
    assert run_config.load(tmp_path).mesh.fsdp == 1
    assert run_config.differences(saved, config) == []


def test_the_page_of_figures_explains_every_figure():
    text = figures.PAGE.read_text()
    assert beta_vae.get_config().checkpoint.best_metric in figures.BY_NAME
    for name, figure in figures.BY_NAME.items():
        assert f"| `{name}` | " + figure.text.replace("|", r"\|") in text, name


def test_default_declares_every_shared_field_of_a_variant():
    shared = run_config.flatten(default.get_config()).keys()
    for module in CONFIGS.values():
        own = run_config.flatten(module.get_config()).keys() - shared
        # The parts that a rate may name are those of the model.
        assert all(field.startswith(("model.", "optimizer.own_")) for field in own)


def test_clipping_beside_a_large_gamma_is_warned_of():
    config = capacity_vae.get_config()
    module = registry.load("models", "capacity_vae", field="model.name")
    assert module.cautions(config) == []
    config.optimizer.clip_norm = 1.0
    assert "clip_norm=1.0 with config.model.gamma=20.0" in module.cautions(config)[0]


def test_few_batches_of_a_folder_of_images_which_may_be_large_are_read_ahead():
    assert beta_vae.get_config().data.prefetch_batches == 64
    assert beta_vae.get_config("image_folder").data.prefetch_batches == 16
