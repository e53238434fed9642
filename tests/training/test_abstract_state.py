"""Describing a state needs no device."""

import os
import subprocess
import sys

import pytest

from pipeline.runtime import registry
from tests.support import code_folders

# No backend has this name, so starting any backend would fail.
NOWHERE = {**os.environ, "JAX_PLATFORMS": "nowhere"}
DESCRIBE = """
import importlib, sys
import jax
from pipeline import datasets
from pipeline.training import step

name, folder = sys.argv[1:]
presets = "smoke" if name == "code_prior" else "sprites,smoke"
config = importlib.import_module(f"configs.{name}").get_config(presets)
config.data.path = folder
config.update_from_flattened_dict({"optimizer.ema_decay": 0.9, "optimizer.warmup_steps": 2})
state = step.abstract_state(config, datasets.example_spec(config))
print(state.step.shape)
"""


def python(*arguments):
    return subprocess.run(
        [sys.executable, "-c", *arguments], env=NOWHERE, capture_output=True, text=True
    )


@pytest.mark.parametrize("name", registry.names("models"))
def test_an_abstract_state_touches_no_device(name, tmp_path):
    folder = code_folders.write(tmp_path) if name == "code_prior" else ""
    found = python(DESCRIBE, name, str(folder))
    assert (found.returncode, found.stdout) == (0, "()\n"), found.stderr


def test_a_device_of_a_platform_that_is_not_there_is_an_error():
    assert "'nowhere'" in python("import jax; jax.devices()").stderr
