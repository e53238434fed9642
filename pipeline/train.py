"""The command that trains: python -m pipeline.train --config=configs/beta_vae.py --workdir=DIR.

Exit codes: 0 complete; 2 a mistake in the input, one line says which; 75 stopped by a signal and
130 by Ctrl-C, both saved, the same command resumes; 1 a fault.
"""

import sys
import time
import traceback
from pathlib import Path
from typing import Any

from pipeline.runtime import allocator, cluster, errors, exit_codes, peers, signals


def main() -> int:
    """Reads the flags, joins the processes, and runs."""
    began = time.perf_counter()
    allocator.keep_freed()  # before any thread: that of StopRequest is the first
    stop = signals.StopRequest()  # before the slow imports: a signal then counts as well
    others = peers.alone()
    try:
        from pipeline.runtime import cache, command_line

        options = command_line.parse(sys.argv)
        cache.enable_compilation_cache(options.config.compilation_cache)
        cluster.initialize(options)
        others = peers.connect()
        stop.on_end = others.fail  # so that all leave to be run again, not as after a loss
        from pipeline.training import loop, setup

        imported = time.perf_counter() - began
        stop.grace_seconds = options.config.grace_seconds
        ready = setup.prepare(options.config, workdir=options.workdir, open_data=False)
        if options.dry_run:
            code = _dry_run(setup.with_data(ready), options.workdir)
        else:
            code = loop.run(
                ready,
                options.workdir,
                stop=stop,
                others=others,
                imported=imported,
                profile=options.profile,
            )
    except errors.InputError as error:
        return _failed(str(error), others, 2)
    except OSError as error:
        return _failed(errors.reason(error), others, 1)
    except FloatingPointError as error:
        return _failed(str(error), others, 1)
    except Exception as error:
        if type(error).__name__ == "JaxRuntimeError":
            others.settle()  # the sum that failed may be another process's death
        errors.say(traceback.format_exc().rstrip())
        return _failed(f"{type(error).__name__}: {error}".split("\n")[0], others, 1)
    others.leave()
    return code


def _dry_run(ready: Any, workdir: Path) -> int:
    """Compiles the step for these devices, and says what it needs; the exit code of `plan`.

    `ready` is a `setup.Setup` with open data.
    """
    import jax

    from pipeline.display import terminal
    from pipeline.performance import planning, topologies
    from pipeline.runtime import run_config
    from pipeline.training import evaluation

    evaluation.Evaluations(ready)  # whose errors a run would meet, too
    run_config.check_against_run(ready.given, workdir)
    errors.check_writable(workdir)
    topology = topologies.here(list(ready.mesh.devices.flat))
    found = planning.plan(ready, topology)
    screen = terminal.Terminal(active=jax.process_index() == 0)
    screen.table("The step on these devices", planning.rows(found, topology))
    screen.note("Nothing was trained or written: the same command without --dry_run trains.")
    return exit_codes.COMPLETE if found["fits"] else exit_codes.MISTAKE


def _failed(reason: str, others: peers.Peers, code: int) -> int:
    """Says why this process failed, here and to the others, which then leave."""
    errors.say(f"error: {reason}")
    others.fail(reason, code)
    return code


if __name__ == "__main__":
    exit_codes.leave(main())
