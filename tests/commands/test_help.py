"""`--help` of every command fits on a screen, and needs neither JAX nor a valid config."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import benchmark, evaluate, export, generate, plan, prepare, study, train
from pipeline.performance import loops, scaling
from pipeline.performance.frameworks import compare, inputs
from pipeline.runtime import errors

# ml_collections needs this to load a config's file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
ROOT = Path(__file__).parents[2]
COMMANDS = {
    command.COMMAND.module: command
    for command in (
        *(train, study, generate, evaluate, export, prepare, plan, benchmark),
        *(compare, inputs, loops, scaling),
    )
}


def shown(command, monkeypatch, capsys, *arguments):
    """Returns what `--help` prints; the exit code must be 0."""
    monkeypatch.setattr(sys, "argv", [command.COMMAND.module, *arguments])
    with pytest.raises(SystemExit) as left:
        command.COMMAND.answer(sys.argv)
    assert left.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_is_a_screenful(name, monkeypatch, capsys):
    lines = shown(COMMANDS[name], monkeypatch, capsys, "--help").splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_names_every_flag_with_its_default(name, monkeypatch, capsys):
    text = shown(COMMANDS[name], monkeypatch, capsys, "--help")
    for flag in COMMANDS[name].COMMAND.takes:
        (line,) = [line for line in text.splitlines() if line.split("=")[0] == f"  --{flag.name}"
                   or line.startswith(f"  --{flag.name} ")]  # fmt: skip
        assert line.endswith(")") and ("(default: " in line or "(needed)" in line)
        if isinstance(flag.default, int) and not isinstance(flag.default, bool):
            assert f"(default: {flag.default})" in line


@pytest.mark.parametrize("name", [name for name in COMMANDS if COMMANDS[name].COMMAND.groups])
def test_flags_that_are_read_together_share_a_line_of_the_help(name, monkeypatch, capsys):
    lines = shown(COMMANDS[name], monkeypatch, capsys, "--help").splitlines()
    for group in COMMANDS[name].COMMAND.groups:
        words = [f"--{flag.name}={flag.value}" for flag in group.flags]
        (line,) = [line for line in lines if line.split()[: len(words)] == words]
        assert line.endswith(f"  {group.text} (default: {group.shown})")


def test_no_flag_is_parsed_that_the_help_does_not_name():
    values, _ = train.COMMAND.read(["train", "--config=configs/beta_vae.py", "--workdir=x"])
    named = {flag.name for flag in train.COMMAND.takes}
    assert {name for name in values if not name.startswith("config.")} <= named


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("asked", ["-h", "--helpshort", "--helpfull"])
def test_there_is_one_help_under_every_usual_name(name, asked, monkeypatch, capsys):
    usual = shown(COMMANDS[name], monkeypatch, capsys, "--help")
    assert shown(COMMANDS[name], monkeypatch, capsys, "--typo=1", asked) == usual


@pytest.mark.parametrize("name", [name for name in COMMANDS if not name.endswith("scaling")])
def test_both_examples_are_accepted(name, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    text = shown(COMMANDS[name], monkeypatch, capsys, "--help")
    begin = f"example: python -m {name} "
    examples = [line.removeprefix(begin) for line in text.splitlines() if line.startswith(begin)]
    assert len(examples) == 2
    for example in examples:
        assert COMMANDS[name].parse([name, *shlex.split(example)])


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_answered_without_jax_and_before_anything_is_checked(name, tmp_path):
    # This jax cannot be imported, and Python finds it before the installed one.
    (tmp_path / "jax.py").write_text("raise SystemExit('jax was imported')\n")
    result = subprocess.run(
        [sys.executable, "-m", name, "--config=nowhere.py", "--help"],
        cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert f"usage: python -m {name}" in result.stdout


@pytest.mark.parametrize(
    ("command", "arguments", "line"),
    [
        (train, [], "--config and --workdir are needed: python -m"),
        (train, ["--config=configs/beta_vae.py"], "^--workdir is needed: python -m"),
        (generate, ["x" * 300], "is not a flag: write --labels=0,1,2"),
        (train, ["--config=configs/beta_vae.py", "run"], "argument 'run' is not a flag: write"),
        (plan, ["--topology=cpu:2"], "--config is needed: python -m pipeline.plan"),
        (generate, [], "--workdir is needed: python -m pipeline.generate --workdir=runs/cond"),
        (generate, ["--workdir=a", "--num=0"], "--num=0 must be at least 1"),
        (benchmark, ["--config=configs/beta_vae.py", "--loop_steps=-1"], "must be at least 0"),
        (prepare, ["--source=a"], "^--out is needed: python -m pipeline.prepare --source=PHOTOS"),
        (prepare, ["--source=a", "--out=b", "--shards=-1"], "--shards=-1 must be at least 0"),
        (study, ["--workdir=a"], "^--config is needed: python -m pipeline.study --config=configs"),
        (study, ["--config=disentanglement", "--workdir=a", "--of=0"], "--of=0 must be at least 1"),
        (evaluate, ["--workdir=a", "--batch_size=-1"], "--batch_size=-1 must not be negative"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(command, arguments, line, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(errors.InputError, match=line) as raised:
        command.parse(["command", *arguments])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("command", "flag", "kind"),
    [
        (plan, "json", "a folder: name a file"),
        (benchmark, "json", "a folder: name a file"),
        (generate, "out", "a file: name a folder"),
        (evaluate, "out", "a file: name a folder"),
        (prepare, "out", "a file: name a folder"),
        (export, "out", "a file: name a folder"),
    ],
)
def test_a_place_of_the_other_kind_is_refused(tmp_path, command, flag, kind):
    place = tmp_path / "place"
    place.mkdir() if flag == "json" else place.touch()
    given = "--config=configs/beta_vae.py" if flag == "json" else f"--workdir={tmp_path}"
    given = "--source=photos" if command is prepare else given
    with pytest.raises(errors.InputError, match=kind):
        command.parse(["command", given, f"--{flag}={place}"])
