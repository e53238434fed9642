"""The file that --config names: found, run, and refused in one line that names the place."""

import os
import subprocess
import sys

import pytest

from pipeline import plan, train
from pipeline.runtime import errors, registry, run_config
from tests.support.processes import ROOT

OWN = "from configs import default\n\ndef get_config():\n    return default.get_config()\n"


IN_FILE = "    c.data.image_size = {}\n    return c\n"


def config_of(*arguments, command=train):
    return command.COMMAND.parse(["command", "--workdir=runs/x", *arguments]).config


def refused(*arguments, command=train):
    with pytest.raises(errors.InputError) as raised:
        config_of(*arguments, command=command)
    (line,) = str(raised.value).splitlines()
    return line


@pytest.mark.parametrize("given", ["beta_vae", "configs/beta_vae.py", "beta_vae.py:smoke"])
def test_a_shipped_config_is_found_from_any_folder(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_of(f"--config={given}").model.name == "beta_vae"
    assert config_of("--config", given).total_steps == (60 if "smoke" in given else 5000)


def test_a_file_of_the_user_comes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "beta_vae.py").write_text(OWN)
    assert config_of("--config=configs/beta_vae.py").model.name == ""


def test_get_config_needs_no_argument(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    assert config_of(f"--config={tmp_path / 'own.py'}", "--config.seed=3").seed == 3
    assert "takes no presets, leave out :smoke" in refused(f"--config={tmp_path / 'own.py'}:smoke")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "defines no get_config()"),
        ("get_config = 3", "defines no get_config()"),
        ("def get_config(:\n", "own.py, line 1: SyntaxError"),
        ("import no_such_module\n", "own.py, line 1: ModuleNotFoundError"),
        ("def get_config():\n    return 1 / 0\n", "own.py, line 2: ZeroDivisionError"),
        ("def get_config(a, b):\n    pass\n", "own.py: TypeError"),
        ("def get_config():\n    return {}\n", "returns a dict, not a ConfigDict"),
        ("from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict()\n",
         "lacks config."),
        (OWN.replace("return default.get_config()", "c = default.get_config()\n    c.a = object()\n"
                     "    return c"), "config.a holds a object"),
        ("raise SystemExit(3)\n", "own.py, line 1: SystemExit"),
        ("\0", "own.py"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_config_is_one_line(tmp_path, text, words):
    (tmp_path / "own.py").write_text(text)
    assert words in refused(f"--config={tmp_path / 'own.py'}")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("c.seed = None", "config.seed=None must be like 0"),
        ("c.batch_size = '64'", "config.batch_size='64' must be like 64"),
        ("c.evals = None", "config.evals=None must be like"),
        ("c.model.name = 3", "config.model.name=3 must be like ''"),
        ("c.optimizer.learning_rate = '0.1'", "learning_rate='0.1' must be like 0.0005"),
        ("c.data.resident = 1", "config.data.resident=1 must be like False"),
    ],
)
def test_a_value_of_another_type_in_a_config_is_one_line(tmp_path, line, words):
    (tmp_path / "own.py").write_text(
        "from configs import default\n\ndef get_config():\n    c = default.get_config()\n"
        f"    with c.ignore_type():\n        {line}\n    return c\n"
    )
    assert words in refused(f"--config={tmp_path / 'own.py'}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--config=nowhere.py"],
            "--config=nowhere.py: there is no such file; ours are beta_tcvae, beta_vae",
        ),
        (["--config=beta_vae", "--batch_size=3"], "did you mean --config.batch_size?"),
        (["--config=beta_vae", "--beta.steps=3"], "'beta.steps'"),
        (["--config=beta_vae", "--config.latent_dim=3"], "did you mean model.latent_dim?"),
        (["--config=beta_vae", "--config.model=3"], "or model.adversarial.loss or"),
        (["--config=beta_vae", "--config.seed=1 --config.batch_size=3"], "two overrides in one"),
        (["--config=beta_vae", "--config.model.beta=x"], "config.model.beta.end=x"),
        (
            ["--config=beta_vae", "runs/a"],
            "argument 'runs/a' is not a flag: write --workdir=runs/a",
        ),
        (["--config=beta_vae", "--config.seed=1e400"], "config.seed"),
        (["--config=beta_vae", "--config.model.hidden=(64,"], "config.model.hidden"),
        (["--config=beta_vae", "--config.evals=\udcff"], "is not UTF-8"),
    ],
)
def test_a_flag_that_cannot_work_is_one_line(arguments, words):
    assert words in refused(*arguments)


def test_a_number_overrides_a_schedule():
    for given in ("--config.model.beta=4", "--config.model.beta=4.0"):
        section = config_of("--config=beta_vae", given).model.beta
        assert (section.schedule, section.end) == ("constant", 4.0)
    section = config_of("--config=capacity_vae", "--config.model.capacity=9").model.capacity
    assert (section.schedule, section.end) == ("constant", 9.0)


@pytest.mark.parametrize(
    ("given", "value"), [("32", 32), ("64,96", (64, 96)), ("(64, 96)", (64, 96))]
)
def test_the_size_of_images_is_one_number_or_two(tmp_path, given, value):
    found = config_of("--config=beta_vae", f"--config.data.image_size={given}")
    assert found.data.image_size == value
    path = tmp_path / "own.py"
    path.write_text(OWN.replace("return default", "c = default") + IN_FILE.format(value))
    assert config_of(f"--config={path}").data.image_size == value
    # Older runs have one number in their config.json, and two come back as a tuple.
    run_config.save(found, tmp_path)
    assert run_config.load(tmp_path).data.image_size == value
    assert not run_config.differences(run_config.flatten(run_config.load(tmp_path)), found)


@pytest.mark.parametrize("given", ["64.0", "64x96", "1,2,3", "True", "", "(64, 9.5)", "None", "[]"])
def test_another_size_of_images_is_refused_in_one_line(given):
    config = config_of("--config=beta_vae", f"--config.data.image_size={given}")
    with pytest.raises(errors.InputError, match="must be a whole number, or two for height and"):
        run_config.check(config)


def test_only_what_is_missing_is_needed():
    for arguments, words in (([], "--config and --workdir are"), (["--workdir=a"], "--config is"),
                             (["--config=beta_vae"], "--workdir is")):  # fmt: skip
        with pytest.raises(errors.InputError, match=f"^{words} needed: python -m pipeline.train"):
            train.COMMAND.parse(["command", *arguments])
    with pytest.raises(errors.InputError, match=r"^--config is needed: python -m pipeline\.plan"):
        plan.COMMAND.parse(["command", "--topology=cpu:2"])


def test_a_package_configs_of_the_user_does_not_shadow_ours(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("")
    (tmp_path / "configs" / "mine.py").write_text("SEED = 5\n")
    (tmp_path / "own.py").write_text(
        "from configs import default, mine\n\n"
        "def get_config():\n    c = default.get_config()\n    c.seed = mine.SEED\n    return c\n"
    )
    program = (
        "from pipeline import train\n"
        "found = train.COMMAND.parse(['c', '--workdir=x', '--config=own.py'])\n"
        "print(found.config.seed)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert (found.stdout, found.stderr) == ("5\n", "")


@pytest.mark.parametrize("path", ["~no_such_user/x", "a\udcff"])
def test_a_path_that_cannot_work_is_one_line(path):
    with pytest.raises(errors.InputError, match=r"no home folder|not UTF-8"):
        train.parse(["command", "--config=beta_vae", f"--workdir={path}"])


def test_a_shipped_configs_folder_is_beside_the_package():
    assert registry.CONFIGS == ROOT / "configs"
