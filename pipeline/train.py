"""The command that trains: python -m pipeline.train --config=configs/beta_vae.py --workdir=DIR.

Exit codes: 0 complete; 2 a mistake in the input, one line says which; 75 stopped by a signal and
130 by Ctrl-C, both saved, the same command resumes; 1 a fault.
"""

import os
import sys
import traceback

from pipeline import distributed, errors, memory


def main() -> int:
    """Reads the flags, joins the processes, and runs."""
    stop = distributed.StopRequest()  # before the slow imports: a signal then counts as well
    memory.keep_freed()
    process_id = None
    try:
        from pipeline import flags

        options = flags.parse(sys.argv)
        process_id = options.process_id
        distributed.initialize(
            options.distributed,
            coordinator=options.coordinator,
            num_processes=options.num_processes,
            process_id=options.process_id,
        )
        from pipeline import loop

        return loop.run(options.config, options.workdir, stop=stop)
    except errors.InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {errors.reason(error)}", file=sys.stderr)
        return 1
    except Exception as error:
        traceback.print_exc()
        where = "" if process_id is None else f"process {process_id}: "
        print(f"error: {where}{type(error).__name__}: {error}".split("\n")[0], file=sys.stderr)
        return 1


if __name__ == "__main__":
    code = main()
    # Not sys.exit: after a failure of one process it would wait for the others at a barrier, and
    # their death there would replace this exit code.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
