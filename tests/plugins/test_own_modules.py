"""Modules from outside the package: the example on the models' page, and mistakes."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from configs import beta_vae
from pipeline import datasets, evals, models
from pipeline.display import event_files
from pipeline.runtime import errors, registry, run_config

ROOT = Path(__file__).parents[2]
README = (ROOT / "pipeline" / "models" / "README.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", README, re.DOTALL))
COMMANDS = re.search(r"```sh\n(.*?)```", README, re.DOTALL)[1].splitlines()
ONE_DEVICE = re.sub(r"device_count=\d+", "device_count=1", os.environ["XLA_FLAGS"])
SHORT = (
    "--config.batch_size=16",
    "--config.eval_examples=32",
    "--config.log_every_steps=1",
    "--config.model.hidden=(8,)",
)


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def run(folder, command, *more):
    """Runs a command of the page in the folder, and returns what it printed."""
    _, *arguments = shlex.split(command)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    found = subprocess.run(
        [sys.executable, *arguments, *more],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "XLA_FLAGS": ONE_DEVICE},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_the_readmes_example_trains_resumes_is_evaluated_and_generates(tmp_path):
    write(tmp_path, BLOCKS)
    workdir = tmp_path / "runs" / "discs"
    train, resume, evaluate, evaluate_one, generate = COMMANDS
    run(tmp_path, train, *SHORT, "--config.total_steps=2")
    run(tmp_path, resume, *SHORT, "--config.total_steps=4")
    points = event_files.read_scalars(workdir / "tensorboard")
    assert [step for step, _ in points["train/latents_above_free_nats"]] == [1, 2, 3, 4]
    assert [step for step, _ in points["heldout/sample_brightness"]] == [2, 4]
    config = json.loads((workdir / "config.json").read_text())
    assert config["model.name"] == "my_package.free_bits"

    run(tmp_path, evaluate)
    folder = workdir / "reports" / "4"
    found = json.loads((folder / "metrics.json").read_text())
    assert "my_package.brightness" in found["evaluations"]
    assert {"sample_brightness", "latents_above_free_nats"} <= found["figures"].keys()
    assert (folder / found["files"]["bright_samples"]).is_file()
    assert "sample_brightness" in (folder / "index.html").read_text().replace(" ", "_")

    run(tmp_path, evaluate_one)
    found = json.loads((tmp_path / "brightness" / "metrics.json").read_text())
    assert found["evaluations"] == ["my_package.brightness"]
    assert str(folder / "generated.png") in run(tmp_path, generate)


def test_the_readmes_test_of_the_model_passes(tmp_path):
    write(tmp_path, BLOCKS)
    found = run(tmp_path, "python -m pytest -q my_package/test_free_bits.py")
    assert "1 passed" in found


def test_the_current_directory_is_searched_as_by_python_m(tmp_path):
    write(tmp_path, {"in_this_folder/a_model.py": "class Model: pass\n"})
    load = "from pipeline.runtime import registry; print(registry.load('models', 'in_this_folder."
    load += "a_model', field='model.name').Model.__module__)"
    # -P leaves the folder out of Python's path, as an installed script does.
    assert run(tmp_path, f'python -P -c "{load}"') == "in_this_folder.a_model\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Makes modules `given.*` in the current directory."""
    write(
        tmp_path,
        {
            "given/__init__.py": "",
            "given/empty.py": "",
            "given/needy.py": "import given_by_nobody\n",
            "given/misspelt.py": "from json import dunps\n",
            "given/half.py": "def spec(section):\n    return {}\n",
            "given/codes.py": "class Model:\n    def vectors(self, codes): ...\n",
        },
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "given"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent.model", "there is no module absent in "),
        ("given.absent", "there is no module given.absent in "),
        ("given.needy", "the module given.needy needs given_by_nobody, which cannot be imported"),
        ("given.misspelt", "the module given.misspelt cannot be imported: cannot import name 'dun"),
        ("given.empty", "the module given.empty (.*empty.py) defines no `Model`"),
        ("given..empty", "'given..empty' is no name of a module"),
        (".empty", "'.empty' is no name of a module"),
        ("given.empty.", "'given.empty.' is no name of a module"),
    ],
)
def test_a_module_that_cannot_be_used_is_an_error_of_one_line(own, name, reason):
    config = beta_vae.get_config("smoke")
    config.model.name = name
    with pytest.raises(errors.InputError) as found:
        models.make(config, datasets.example_spec(config))
    line = str(found.value)
    assert line.startswith(f"config.model.name={name!r}")
    assert re.search(reason.replace("(", r"\(").replace(")", r"\)"), line), line
    assert "\n" not in line


def test_a_data_set_needs_both_functions_and_an_evaluation_one(own):
    config = beta_vae.get_config("smoke")
    config.data.name = "given.half"
    with pytest.raises(errors.InputError, match=r"config.data.name='given.half': .* no `load`"):
        datasets.load(config)
    with pytest.raises(errors.InputError, match=r"^--evals=given.empty: .* defines no `make`"):
        evals.choose("given.empty", config, None, None)
    config.evals = ("given.empty",)
    with pytest.raises(errors.InputError, match=r"^config.evals=.*'given.empty'.* no `make`"):
        evals.choose("all", config, None, None)


def test_an_evaluation_accepts_a_model_from_outside_by_its_methods(own):
    config = beta_vae.get_config("smoke")
    config.model.name = "given.codes"
    evals.check_model(config, "vectors", what="codes", evaluation="code_maps")
    with pytest.raises(errors.InputError, match=r"'given.codes' has no Gaussian posterior"):
        evals.check_model(config, "posterior", what="Gaussian posterior", evaluation="traversals")


def test_the_section_of_an_evaluation_may_change_on_resuming():
    config = beta_vae.get_config("smoke").unlock()
    config.my_evaluation = {"num": 3}
    saved = run_config.flatten(config)
    config.my_evaluation.num = 4
    config.traversals.num = 2
    assert run_config.differences(saved, config) == ["config.my_evaluation.num is 4, was 3"]
    config.evals += ("my_package.my_evaluation",)
    assert run_config.differences(saved, config) == []


def test_names_of_a_folder_import_none_of_its_modules():
    script = "import sys; from pipeline.runtime import registry; "
    script += (
        "registry.names('evals'); print('jax' in sys.modules, 'pipeline.evals' in sys.modules)"
    )
    assert run(ROOT, f'python -c "{script}"') == "False False\n"
    assert "vq_vae" in registry.names("models")
