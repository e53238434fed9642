"""The command that trains: python -m pipeline.train --config=configs/beta_vae.py --workdir=DIR.

Exit codes: 0 complete; 2 a mistake in the input, which one line names; 1 a fault. A run that a
signal stops (75) or Ctrl-C stops (130) has saved a checkpoint, and the same command resumes it.
"""

import faulthandler
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.runtime import (
    allocator,
    cluster,
    command_line,
    errors,
    exit_codes,
    flags,
    output,
    peers,
    signals,
)
from pipeline.runtime.storage import faults

COMMAND = command_line.Command(
    "pipeline.train",
    "Trains a model, or resumes the run in --workdir.",
    (
        *flags.CONFIG,
        flags.workdir("runs/beta_vae"),
        flags.switch("dry_run", "checks the config, compiles the step, and leaves"),
        flags.switch("profile", "traces a few steps, for TensorBoard"),
        *flags.PROCESSES,
    ),
    (
        "--config=configs/beta_vae.py --workdir=runs/beta_vae",
        "--config=configs/vq_vae.py --workdir=runs/vq --config.seed=1",
    ),
    instead="--config.field=value",
    codes="0 complete, 2 a mistake in the input, 75 or 130 stopped and saved, 1 a fault",
)


class Options(NamedTuple):
    """The values of the flags; `config` is locked."""

    config: Any
    workdir: Path
    dry_run: bool
    profile: bool
    processes: flags.Processes


def parse(arguments: Sequence[str]) -> Options:
    """Parses `sys.argv`.

    Raises:
        InputError: an unknown flag or config field, or a value of the wrong type.
    """
    values = COMMAND.parse(arguments)
    return Options(
        config=values.config,
        workdir=flags.run(values.workdir),
        dry_run=values.dry_run,
        profile=values.profile,
        processes=flags.processes(values),
    )


def main() -> int:
    """Reads the flags, joins the processes, trains, and returns the exit code."""
    began = time.perf_counter()
    # This precedes all files. A run must neither end nor wait because nobody reads its output.
    output.outlast(patience=output.PATIENCE_SECONDS)
    faulthandler.enable(file=2)  # a mapped file that is shortened ends the process by SIGBUS
    allocator.keep_freed()  # must precede every thread, and StopRequest starts the first one
    stop = signals.StopRequest()  # precedes the slow imports, so that it notes signals during them
    others = peers.alone()
    try:
        # Mistakes in the flags end the command before JAX is imported.
        options = parse(sys.argv)
        from pipeline.runtime import cache

        # The cache and the cluster must be set up before JAX starts its backends.
        stop.grace_seconds = options.config.grace_seconds
        cache.enable_compilation_cache(options.config.compilation_cache)
        others = cluster.join(options.processes, stopped=lambda: stop.signal is not None)
        stop.on_end = others.fail  # all then exit with the code to run again, not with a fault
        from pipeline.runtime.processes import alike, traits
        from pipeline.training import loop, run_folder, setup

        if others.exist:
            alike.check(traits.of(sys.argv, options.config), others)
        # `loop.run` opens the data, after it has checked the workdir and obeyed a stop request.
        imported = time.perf_counter() - began
        ready = setup.prepare(options.config, workdir=options.workdir, open_data=False)
        if options.dry_run:
            code = _dry_run(setup.with_data(ready), options.workdir, others)
        else:
            with run_folder.held(options.workdir, ready, stop=stop, others=others) as folder:
                code = loop.run(
                    ready,
                    folder,
                    stop=stop,
                    others=others,
                    imported=imported,
                    profile=options.profile,
                )
    except errors.InputError as error:
        return _failed(str(error), others, exit_codes.MISTAKE)
    except errors.TryAgain as error:
        return _failed(str(error), others, stop.exit_code)
    except OSError as error:
        others.settle(error)
        return _failed(errors.reason(error), others, exit_codes.FAULT)
    except FloatingPointError as error:
        return _failed(str(error), others, exit_codes.FAULT)
    except Exception as error:
        others.settle(error)
        errors.say(traceback.format_exc().rstrip())
        return _failed(errors.reason(error), others, exit_codes.FAULT)
    others.leave()
    return code


def _dry_run(ready: Any, workdir: Path, others: peers.Peers) -> int:
    """Compiles the step for these devices, shows what it needs, and returns the exit code.

    Args:
        ready: a `setup.Setup` with open data.
        workdir: of the run; it is checked and not written.
        others: the other processes.

    Returns:
        0 if the step fits into the devices' memory, else 2.
    """
    import jax

    from pipeline.display import terminal
    from pipeline.performance import planning, topologies
    from pipeline.runtime import run_config
    from pipeline.training import batching, evaluation, fingerprint, setup

    evaluation.Evaluations(ready)  # raises the errors that a run would meet
    run_config.check_against_run(ready.given, workdir)
    fingerprint.check(ready, workdir, others)
    batching.check_memory(ready.opened.train, ready.config, ready.mesh)
    faults.check_writable(workdir)
    topology = topologies.here(list(ready.mesh.devices.flat))
    found = planning.plan(ready, topology)
    screen = terminal.Terminal(active=jax.process_index() == 0)
    for caution in setup.cautions(ready):
        screen.warn(caution)
    screen.table("The step on these devices", planning.rows(found, topology))
    screen.note("Nothing was trained or written: the same command without --dry_run trains.")
    return exit_codes.COMPLETE if found["fits"] else exit_codes.MISTAKE


def _failed(reason: str, others: peers.Peers, code: int) -> int:
    """Prints why this process failed and tells the others, which then leave; returns `code`."""
    errors.say(f"error: {reason}")
    others.fail(reason, code)
    return code


if __name__ == "__main__":
    exit_codes.leave(main())
