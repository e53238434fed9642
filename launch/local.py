"""Trains with several processes on this machine, and starts them again when they end early.

    python launch/local.py --processes=2 -- --config=configs/beta_vae.py --workdir=runs/a

The arguments of pipeline.train follow after `--`. The exit code is 0 if the run is complete, and 2
for a mistake in the input. It is 75 after a forwarded signal, as SIGTERM, and 130 after Ctrl-C; the
same command then resumes. If restarts no longer help, it is the exit code of the failure.
"""

import argparse
import contextlib
import itertools
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import supervisor


def main() -> int:
    """Reads the flags and supervises the processes."""
    options, training = parse(sys.argv[1:])
    run = workdir(training)

    def start() -> list[supervisor.Command]:
        address = f"127.0.0.1:{free_port()}"
        return [
            supervisor.Command(
                [
                    sys.executable,
                    "-m",
                    "pipeline.train",
                    *training,
                    *place(options, address, index),
                ],
                environment(options, index, os.environ),
            )
            for index in range(options.processes)
        ]

    return supervisor.supervise(
        start,
        progress=lambda: newest_step(run),
        max_failures=options.max_failures,
        grace_seconds=options.grace_seconds,
        chaos=supervisor.Chaos(
            options.chaos_seconds, faults=options.chaos_faults, seed=options.chaos_seed
        ),
    )


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns the launcher's options and the arguments of pipeline.train; exits 2 on a mistake."""
    # Abbreviations are off, so that a misspelt flag is an error and never another flag.
    parser = argparse.ArgumentParser(
        usage="%(prog)s [options] -- --config=FILE --workdir=DIR …",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--processes", type=int, default=1, help="how many processes share the run")
    add("--platform", choices=["cpu", "cuda", "tpu"], default="cpu", help="cpu: virtual devices")
    add("--devices", type=int, default=0, help="of each process; 0: one on cpu, else all of them")
    add("--max-failures", type=int, default=3, help="restarts without a new checkpoint in between")
    add("--grace-seconds", type=float, default=60.0, help="for the others after one ends early")
    add("--chaos-seconds", type=float, default=0.0, help="mean time between faults; 0: no faults")
    add("--chaos-faults", type=int, default=5, help="how many faults at most")
    add("--chaos-seed", type=int, default=0, help="of the kinds, places and moments of faults")
    # Everything after `--` belongs to the training command.
    own = list(arguments)
    split = own.index("--") if "--" in own else len(own)
    options, training = parser.parse_args(own[:split]), own[split + 1 :]
    # Mistakes that every process would otherwise report, each for itself.
    mistake = ""
    if not workdir(training):
        mistake = "--workdir is missing: write -- --config=FILE --workdir=DIR after the options"
    elif options.processes < 1 or options.devices < 0:
        mistake = (
            f"--processes={options.processes} must be 1 or more, --devices={options.devices} 0"
        )
    elif options.processes > 1 and options.platform == "tpu":
        mistake = "--platform=tpu runs one process a host: leave --processes out"
    elif options.processes > 1 and options.platform == "cuda" and not options.devices:
        mistake = "--devices=0 gives all GPUs to one process: say how many each of several gets"
    if mistake:
        print(f"error: {mistake}", file=sys.stderr)
        raise SystemExit(supervisor.MISTAKE)
    return options, training


def place(options: argparse.Namespace, address: str, index: int) -> list[str]:
    """Returns the flags that let process `index` find the others; none for a single process."""
    if options.processes == 1:
        return []
    count = options.processes
    return [f"--coordinator={address}", f"--num_processes={count}", f"--process_id={index}"]


def environment(
    options: argparse.Namespace, index: int, outer: Mapping[str, str]
) -> dict[str, str]:
    """Returns the environment of process `index`: its platform and its devices."""
    inner = {**outer, "JAX_PLATFORMS": options.platform, "PYTHONUNBUFFERED": "1"}
    if options.platform == "cpu":
        devices = f"--xla_force_host_platform_device_count={options.devices or 1}"
        inner["XLA_FLAGS"] = f"{outer.get('XLA_FLAGS', '')} {devices}".strip()
    elif options.platform == "cuda" and options.devices:
        first, behind = index * options.devices, (index + 1) * options.devices
        visible = outer.get("CUDA_VISIBLE_DEVICES", "")
        names = visible.split(",") if visible else [str(number) for number in range(behind)]
        inner["CUDA_VISIBLE_DEVICES"] = ",".join(names[first:behind])
    return inner


def workdir(training: Sequence[str]) -> str:
    """Returns the value of --workdir, given as one argument or as two; empty if it is missing."""
    found = ""
    for text, following in itertools.pairwise([*training, ""]):
        name, equals, value = text.partition("=")
        if name in ("--workdir", "-workdir"):
            found = value if equals else following
    return found


def newest_step(run: str) -> int:
    """Returns the newest committed step of a run; −1 if there is none, or its store fails."""
    if "://" in run:
        from pipeline.runtime.storage import places
        from pipeline.runtime.workdir import contents

        with contextlib.suppress(OSError, ValueError):  # pipeline.train says what is wrong
            return max(contents.committed(places.of(run)) or [-1])
        return -1
    checkpoints = Path(run).expanduser() / "checkpoints"
    names = [path.name for path in checkpoints.glob("*")]  # nothing if the folder is missing
    return max((int(name) for name in names if name.isdecimal()), default=-1)


def free_port() -> int:
    """Returns a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    code = main()
    with contextlib.suppress(OSError, AttributeError):  # the output must not change the exit code
        sys.stdout.flush()
    os._exit(code)
