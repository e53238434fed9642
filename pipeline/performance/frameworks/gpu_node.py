"""The command that takes all figures of a GPU node in one go, in less than ten minutes.

First `pipeline.benchmark` runs, with a trace. Then all forms of all works start at once, because
most of their time is compilation, and each work's forms run in turn. Networks have the same compute
dtype on both sides, by default bfloat16 under float32 parameters and losses. What takes too long or
fails is left out, with its reason.
"""

import contextlib
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.display import terminal
from pipeline.performance import figures_file, timing
from pipeline.performance.frameworks import forms, gpu_card, gpu_page, places, worker, works
from pipeline.performance.frameworks.groups import Absent, Group
from pipeline.runtime import command_line, exit_codes, files, flags

WORKS = ("conv_beta_vae", "tutorial_vq_vae", "sonnet_vq_vae", "dense_conditional_vae", works.LARGE)
FORMS = {
    forms.OURS: forms.Form("ours"),
    "PyTorch": forms.Form("pytorch"),
    "PyTorch compile": forms.Form("pytorch", ("compile",)),
    "PyTorch channels-last compile": forms.Form("pytorch", ("channels-last", "compile")),
}
# The parts of the ten minutes. The rounds get what is left, and are fewer if that is too little.
TOTAL_SECONDS = 540.0
BENCHMARK_SECONDS = 180.0
START_SECONDS = 240.0
COMMAND = command_line.Command(
    "pipeline.performance.frameworks.gpu_node",
    "Takes all figures of a GPU node in less than ten minutes: benchmark, trace, other frameworks.",
    (
        flags.Flag("out", "DIR", "folder for gpu.json, gpu.md and the trace", example="runs/gpu"),
        flags.Flag("work", "NAME[,…]", "what is timed", list(WORKS), "list", shown="all"),
        flags.choice("dtype", ("bfloat16", "float32"), "compute dtype of the networks"),
        flags.integer("rounds", "rounds, in each of which every form runs once", 7, least=1),
        flags.integer("batch_size", "of every work; 0: its own", 0, least=0),
        flags.Flag("benchmark", "FILE", "config of pipeline.benchmark", "configs/vq_vae.py"),
        flags.switch("cpu", "a trial on CPUs"),
    ),
    ("--out=runs/gpu", "--out=runs/trial --cpu --rounds=1 --batch_size=1"),
    instead="--work=NAME",
)


def parse(arguments: Sequence[str]) -> Any:
    """Parses `sys.argv` and returns absl's values.

    Raises:
        InputError: a flag or a work is unknown, or a number is out of its range.
    """
    values = COMMAND.parse(arguments)
    for name in values.work:
        works.check(name)
    return values


def measure(
    values: Any, environment: Mapping[str, str], out: Path, keep: Callable[[dict[str, Any]], None]
) -> None:
    """Measures part by part.

    Args:
        values: of the flags.
        environment: variables of all processes.
        out: folder for the trace.
        keep: is called after each part with {part: its figures}.
    """
    end = time.monotonic() + TOTAL_SECONDS
    keep({"benchmark": _benchmark(values, environment, out)})
    with contextlib.ExitStack() as stack:
        groups, left_out = _started(values, environment, stack)
        keep({"left out": left_out})
        for number, work in enumerate(values.work):
            own = {form: group for (name, form), group in groups.items() if name == work}
            share = (end - time.monotonic()) / (len(values.work) - number)
            keep({work: _timed(own, values.rounds, share)})


def _benchmark(values: Any, environment: Mapping[str, str], out: Path) -> dict[str, Any]:
    """Returns the figures of `pipeline.benchmark`, or `absent` with the reason."""
    file = out / "benchmark.json"
    command = [sys.executable, "-m", "pipeline.benchmark", f"--config={values.benchmark}"]
    command += [f"--rounds={min(values.rounds, 3)}", f"--json={file}", f"--profile={out / 'trace'}"]
    options: Any = {"env": os.environ | environment, "stdin": subprocess.DEVNULL}
    try:
        subprocess.run(command, check=True, timeout=BENCHMARK_SECONDS, **options)
    except subprocess.SubprocessError as error:
        return {"absent": f"it ended early: {error}"}
    return json.loads(file.read_text())


def _started(
    values: Any, environment: Mapping[str, str], stack: contextlib.ExitStack
) -> tuple[dict[tuple[str, str], Group], dict[str, str]]:
    """Returns the groups by work and form, and why others are left out.

    Raises:
        InputError: our own form sees no GPU, so that nothing could be compared.
    """
    changes = f"compute_dtype={values.dtype}"
    if values.batch_size:
        changes += f",batch_size={values.batch_size}"
    groups, left_out = {}, {}
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    for work in values.work:
        for name, form in FORMS.items():
            groups[work, name] = Group(
                work,
                form.framework,
                form.options,
                environment=forms.environment(form, threads) | dict(environment),
                changes=changes,
                start_seconds=0.0,
            )
            stack.callback(groups[work, name].close)
    end = time.monotonic() + START_SECONDS
    for key, group in list(groups.items()):
        try:
            group.ready(max(0.0, end - time.monotonic()))
            if group.device != ("cpu" if values.cpu else "gpu"):
                group.close()
                raise Absent(f"it sees only a {group.device}; see EXTRAS in the Makefile")
        except Absent as reason:
            left_out[" ".join(key)] = str(reason)
            del groups[key]
    return groups, left_out


def _timed(groups: Mapping[str, Group], rounds: int, seconds: float) -> dict[str, Any]:
    """Returns the figures of one work's forms, measured within about `seconds`."""
    limited = {
        name: functools.partial(group.round, max(1.0, seconds)) for name, group in groups.items()
    }
    if forms.OURS not in groups:
        return {"absent": "our own form is left out"}
    try:
        # While others compiled, steps were slow: now that all are ready, rounds have other lengths.
        for group in groups.values():
            group.resize()
        fit = int(seconds / (1.5 * worker.ROUND_SECONDS * len(groups))) - 1
        if fit < 1:
            return {"absent": "no time was left"}
        taken = timing.in_turn(limited, rounds=min(rounds, fit))
    except Absent as reason:
        return {"absent": str(reason)}
    per_step = {name: [s / groups[name].steps for s in taken[name]] for name in groups}
    return {
        name: {
            "ms": 1000 * timing.median(per_step[name]),
            "ratio": timing.ratio(per_step, name, forms.OURS),
            "version": group.version,
        }
        for name, group in groups.items()
    }


def main() -> int:
    """Reads the flags, measures, and writes the files after each part."""
    return exit_codes.of(_command)


def _command() -> None:
    values, screen = parse(sys.argv), terminal.Terminal()
    cards = [] if values.cpu else gpu_card.cards()
    out = flags.path(values.out, name="--out")
    settings = {"compute dtype": f"{values.dtype} in all forms", "rounds": str(values.rounds)}
    figures: dict[str, Any] = {"about": gpu_card.about(cards) | settings}
    began = time.monotonic()

    def keep(part: Mapping[str, Any]) -> None:
        # A node that is lost later has then delivered what it had.
        figures.update(part)
        figures["about"]["seconds"] = f"{time.monotonic() - began:.0f}"
        figures_file.write(out / "gpu.json", figures)
        files.write(out / "gpu.md", gpu_page.markdown(figures, values.work, list(FORMS)))
        screen.note(f"{', '.join(part) or 'start'}: {figures['about']['seconds']} s")

    keep({})  # a folder that cannot be written is known before the first figure
    measure(values, places.only_cpu() if values.cpu else {}, out, keep)
    screen.note(str(out / "gpu.md"))


if __name__ == "__main__":
    exit_codes.leave(main())
