"""Fuzz: odd input for every command, which must work, or be refused in one line with exit code 2.

python -m tests.support.fuzz --cases=2000 --seed=1

A seed draws the input: flags, values and files of a config, images, files of data sets, and files
of a run. Nothing is trained: what follows the checks, such as a compilation, is left out. The
command prints each input that ends otherwise, and then exits with 1. A case can be repeated by its
name.
"""

import argparse
import importlib
import random
import shlex
import sys
import tempfile
from pathlib import Path

from pipeline.runtime import registry, run_config
from tests.support import code_folders, forks, odd_files
from tests.support.processes import ROOT

WORDS = (
    *("", " ", "0", "-1", "1", "2", "3.5", "nan", "inf", "-inf", "1e999", "1e-400", "9" * 30),
    *("True", "None", "abc", "ä€😀", "\udcff", "a b", "a'b", 'a"b', "a\\b", "a\nb", "\x1b[31m"),
    *("{}", "[]", "()", "(1,)", "(0,)", "(-1, 2)", "(64.5,)", '("a",)', "('x', 'x')", "{1: 2}"),
    *("../..", "/", ".", "~", "~nosuchuser/x", "/dev/null", "/dev/full", "/proc/1/mem", "file://x"),
    *("gs://bucket/run", "x" * 300, "a/" * 2000, "*", "[a]", "%s", "{0}", "$HOME", "-", "--", "="),
    *("__import__('os')", "lambda: 0", "0x10", "1_000", "1,2", "all", "best", "latest", str(2**63)),
)
SMALL = (f"--config={ROOT}/configs/beta_vae.py:smoke", "--config.model.hidden=(4,)")
FIELDS = ("batch_size", "seed", "model", "data.path", "nothing", "evals")
CONFIG_FILES = (
    "def get_config(): return {}",
    "def get_config(): return None",
    "get_config = 3",
    "def get_config(a, b): return a",
    "def get_config(): raise RuntimeError('no')",
    "def get_config(:",
    "import nothing_like_this",
    "raise SystemExit(3)",
    "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'a': 1})",
    "from configs import default\ndef get_config(): return default.get_config()",
    "from configs import beta_vae\nc = beta_vae.get_config('smoke')\n"
    "del c.model\ndef get_config(): return c",
    "from configs import beta_vae\nc = beta_vae.get_config('smoke')\n"
    "c.unlock()\nc.seed = 'x'\ndef get_config(): return c",
)


def any_word(draw):
    return "".join(draw.choices(WORDS, k=draw.choice((1, 1, 1, 1, 2))))


# Each kind writes files into `folder`, and returns a command and its arguments; `run` is a run.


def flags(draw, folder, run):
    """A command line of which some arguments are odd, repeated, missing or unknown."""
    name = draw.choice(forks.COMMANDS)
    command = importlib.import_module(f"pipeline.{name}").COMMAND
    arguments = {
        "train": [*SMALL, f"--workdir={folder / 'new'}", "--dry_run"],
        "plan": [*SMALL, "--topology=cpu:2"],
        "benchmark": [*SMALL],
        "prepare": [f"--source={odd_files.images(draw, folder)}", f"--out={folder / 'new'}"],
    }.get(name, [f"--workdir={run}"])
    known = [flag.name for flag in command.every if flag.kind != "field"]
    for _ in range(draw.choice((1, 1, 2))):
        match draw.randrange(6):
            case 0:
                arguments.append(f"--{draw.choice(known)}={any_word(draw)}")
            case 1:
                arguments.insert(draw.randrange(len(arguments) + 1), any_word(draw))
            case 2:
                arguments.append(f"--{draw.choice(known)}")
            case 3:
                arguments.append(f"--{any_word(draw).strip('-')}={any_word(draw)}")
            case 4:
                field = draw.choice(("", "config.")) + draw.choice(FIELDS)
                arguments.append(f"--{field}{draw.choice(('', '='))}{any_word(draw)}")
            case 5 if arguments:
                arguments.pop(draw.randrange(len(arguments)))
    return name, arguments


def values(draw, folder, run):
    """Fields of a config with odd values."""
    variant = draw.choice(registry.names("models"))
    fields = list(run_config.flatten(importlib.import_module(f"configs.{variant}").get_config()))
    arguments = [f"--config={ROOT}/configs/{variant}.py:smoke"]
    if variant == "code_prior":
        arguments.append(f"--config.data.path={run.parent / 'codes'}")
    for _ in range(draw.choice((1, 1, 2))):
        arguments.append(f"--config.{draw.choice(fields)}={any_word(draw)}")
    if draw.random() < 0.2:
        return "plan", [*arguments, "--topology=cpu:2"]
    return "train", [*arguments, f"--workdir={folder / 'new'}", "--dry_run"]


def config_files(draw, folder, run):
    """A config file that is damaged, or that says something odd."""
    path = folder / draw.choice(("mine.py", "a b.py", "ü.py", "config", "x.json", "configs.py"))
    if draw.random() < 0.6:
        path.write_text(draw.choice(CONFIG_FILES))
    elif draw.random() < 0.9:
        path.write_bytes(odd_files.mutated(draw, (ROOT / "configs" / "beta_vae.py").read_bytes()))
    else:
        path.mkdir()
    presets = draw.choice(("", "", ":", ":smoke", ":x", ":smoke,", f":{any_word(draw)}"))
    return "train", [f"--config={path}{presets}", f"--workdir={folder / 'new'}", "--dry_run"]


def images(draw, folder, run):
    """A folder or zip of images of which some are damaged, or are no images."""
    path = odd_files.images(draw, folder)
    given = str(path) if draw.random() < 0.9 else any_word(draw)
    variant = draw.choice(("beta_vae", "conditional_vae"))
    arguments = [
        f"--config={ROOT}/configs/{variant}.py:image_folder,smoke",
        f"--config.data.path={given}",
        *("--config.data.image_size=8", "--config.batch_size=2"),
    ]
    if draw.random() < 0.3:
        sizes = ("resize", "channels", "heldout_examples", "train_examples", "max_corrupt_files")
        number = draw.choice((0, 1, 2, 3, 7, 8, 9, 100))
        arguments.append(f"--config.data.{draw.choice(sizes)}={number}")
    return "train", [*arguments, f"--workdir={folder / 'new'}", "--dry_run"]


def sources(draw, folder, run):
    """Images and arrays to prepare, of which some are damaged; or a damaged prepared data set."""
    path = odd_files.images(draw, folder)
    if draw.random() < 0.3:
        path = odd_files.arrays(draw, folder)
    arguments = [f"--source={path}", f"--out={folder / 'made'}", "--image_size=8", "--processes=1"]
    arguments.append(f"--encoding={draw.choice(('pixels', 'jpeg', 'png'))}")
    if draw.random() < 0.3:
        name = draw.choice(("resize", "channels", "shards", "per_shard", "max_corrupt_files"))
        arguments.append(f"--{name}={draw.choice((0, 1, 2, 3, 7, 8, 9, 100))}")
    if draw.random() < 0.5:
        return "prepare", arguments
    odd_files.prepared(draw, folder / "shards")
    return "train", [
        f"--config={ROOT}/configs/beta_vae.py:prepared,smoke",
        *(f"--config.data.path={folder / 'shards'}", "--config.batch_size=2"),
        *(f"--config.data.copy={draw.choice(('auto', 'always', 'never', 'x'))}",),
        *(f"--workdir={folder / 'new'}", "--dry_run"),
    ]


def data_files(draw, folder, run):
    """Files with the names of a data set's files, and other contents."""
    name = draw.choice(tuple(odd_files.NAMES))
    made = odd_files.data_set(draw, name, folder / "data")
    given = draw.choice((folder / "data", folder / "data", made, folder / "no", "/dev/zero"))
    return "train", [
        f"--config={ROOT}/configs/beta_vae.py:{name},smoke",
        *(f"--config.data.path={given}", f"--workdir={folder / 'new'}", "--dry_run"),
    ]


def run_files(draw, folder, run):
    """A run of which one file is damaged, or whose config has an odd value."""
    copy = odd_files.damaged_run(draw, folder, run)
    step = draw.choice(("best", "latest", "1"))
    return draw.choice((
        ("generate", [f"--workdir={copy}", f"--step={step}"]),
        ("evaluate", [f"--workdir={copy}", f"--step={step}", "--evals=heldout"]),
        ("train", [*SMALL, f"--workdir={copy}", "--dry_run"]),
    ))  # fmt: skip


KINDS = (
    flags,
    flags,
    values,
    values,
    values,
    config_files,
    images,
    images,
    sources,
    data_files,
    run_files,
)


def leave_out_what_follows():
    """Replaces what a command does after its checks; runs in the process of a case."""
    from pipeline import benchmark, evals
    from pipeline.performance import planning

    plan = {"fits": True, "share_of_memory": 0.0, "collectives": [], "memory": {"total": 0}}
    planning.plan = lambda *args, **kwargs: plan
    planning.rows = lambda *args, **kwargs: {}
    benchmark.SECTIONS = ()
    evals.run = lambda *args, **kwargs: {}


def fault(ended):
    """Returns what is wrong with the end of a case, or ""."""
    lines = [text for text in ended.err.splitlines() if text.strip()]
    lines = [text for text in lines if not text.startswith("warning: ")]
    if "Traceback" in ended.err:
        return f"a traceback: {lines[-1]}"
    if ended.code not in (0, 2):
        return f"exit code {ended.code}: {ended.err.strip()[-300:]}"
    if ended.code == 2 and (len(lines) != 1 or not lines[0].startswith("error: ")):
        return f"not one line: {ended.err.strip()[-500:]!r}"
    return ""


def case(name, folder, run, kinds=KINDS):
    """Runs the case of this name in `folder`; returns its command line and what is wrong."""
    draw = random.Random(name)
    folder.mkdir()
    kind = draw.choice(kinds)
    command, arguments = kind(draw, folder, run)
    ended = forks.command(command, arguments, folder, leave_out_what_follows)
    forks.remove(folder)
    return f"{name} ({kind.__name__}): {command} {shlex.join(arguments)}", fault(ended)


def save_run(folder):
    from configs import beta_vae
    from tests.support import runs

    config = beta_vae.get_config("smoke")
    config.model.hidden = (4,)
    runs.save_run(folder, config)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", default="", help="the name of the only case, such as 0-17")
    parser.add_argument("--kind", default="", help=", ".join(kind.__name__ for kind in KINDS))
    options = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")
    forks.import_everything()
    kinds = [kind for kind in KINDS if kind.__name__.startswith(options.kind)]
    names = [options.case] if options.case else [
        f"{options.seed}-{number}" for number in range(options.cases)
    ]  # fmt: skip
    wrong = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        run = Path(folder) / "run"
        # Each in a process of its own: after JAX has started its threads, no fork would work.
        assert forks.wait(forks.start(lambda: save_run(run))) == 0
        assert forks.wait(forks.start(lambda: code_folders.write(Path(folder) / "codes"))) == 0
        for name in names:
            did, found = case(name, Path(folder) / "case", run, kinds)
            if found:
                wrong += 1
                print(did, f"    {found}", sep="\n", flush=True)
    print(f"{len(names)} cases, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
