"""The command that prepares data: python -m pipeline.prepare --source=PHOTOS --out=SHARDS.

It writes shards that all hosts of a run share, and `dataset.json` last. Several processes, also of
several hosts, may run the same command at once. Killed and started again, it makes what is missing.
`--config.data.name=prepared --config.data.path=SHARDS` then trains on them.

Exit codes: 0 complete; 2 a mistake in the input, which one line names; 130 after Ctrl-C; 1 a fault.
"""

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from pipeline.runtime import command_line, errors, exit_codes, flags

MOST_SIDE = 2**14  # pixels
COMMAND = command_line.Command(
    "pipeline.prepare",
    "Prepares a data set: shards that all hosts of a run share.",
    (
        flags.Flag("source", "WHAT", "images, or what configs/README.md lists",
                   example="PHOTOS"),
        flags.Flag("out", "DIR", "folder of the shards", example="SHARDS"),
        flags.Flag("image_size", "N|H,W", "pixels a side; 0: those of arrays, 64 of files", "0"),
        flags.integer("resize", "short side before the cut, in pixels; 0: image_size",
                      0, least=0),
        flags.integer("channels", "3: RGB, 1: grey; 0: those of arrays, 3 of files", 0, least=0),
        flags.choice("encoding", ("auto", "pixels", "jpeg", "png"), "auto: pixels up to 128²"),
        flags.integer("shards", "number of shards of a part; 0: of 128 MiB or less", 0, least=0),
        flags.integer("per_shard", "images of a shard, instead of --shards", 0, least=0),
        flags.integer("max_corrupt_files", "how many corrupt images may be left out", 0, least=0),
        flags.integer("processes", "processes that work here; 0: one a CPU", 0, least=0),
    ),
    (
        "--source=PHOTOS --out=SHARDS --image_size=256",
        "--source=photos.zip --out=SHARDS --shards=64 --encoding=png",
    ),
    instead="--source=WHAT",
)  # fmt: skip


def parse(arguments: Sequence[str]) -> Any:
    """Parses `sys.argv` and returns absl's values.

    Raises:
        InputError: an unknown flag, or a value that cannot work.
    """
    return COMMAND.parse(arguments)


def run(values: Any) -> str:
    """Prepares the data set, and returns a line that says what it is.

    Raises:
        InputError: the source or the flags cannot work, or too many images are corrupt.
        OSError: a file cannot be written.
    """
    from pipeline.datasets.shards import finishing, manifest, plan, workers
    from pipeline.datasets.shards.sources import choosing
    from pipeline.display import terminal
    from pipeline.runtime import files
    from pipeline.runtime.storage import faults, places

    began, folder = time.perf_counter(), places.of(values.out, name="--out")
    source = choosing.opened(values.source)
    others = (values[name].value for name in plan.Asked._fields[1:])
    planned = plan.make(source, plan.Asked(sides(values.image_size), *others))
    screen = terminal.Terminal()
    if files.exists(folder / manifest.NAME):
        whole = manifest.read(folder)
        plan.check_same(folder, whole, planned)
        mended = finishing.mend(folder, planned, source, whole)
        done = f"{mended} shards were missing and are made again" if mended else "all was there"
    else:
        faults.check_writable(folder)
        plan.check_empty(folder)
        plan.agree(folder, planned)
        processes = min(values.processes or len(os.sched_getaffinity(0)), len(planned.shards))
        screen.note(
            f"Preparing {sum(planned.rows.values()):,} images as {planned.encoding} in "
            f"{len(planned.shards)} shards, in {processes} processes"
        )
        workers.make_all(source, planned, folder, processes=processes)
        most = values.max_corrupt_files
        whole = finishing.finish(folder, planned, source, max_corrupt=most)
        done = f"{time.perf_counter() - began:.1f} s"
    corrupt = [found for part in whole.parts.values() for found in part.corrupt.values()]
    if corrupt:
        text = finishing.describe_corrupt(corrupt, sum(planned.rows.values()))
        screen.warn(f"{text}; they are left out")
    size = sum(file.bytes for file in whole.files)
    return f"{folder}: {_counts(whole)}, {size / 1e6:,.1f} MB ({done})"


def _counts(whole: Any) -> str:
    return ", ".join(
        f"{part.rows - len(part.corrupt):,} {name}" for name, part in whole.parts.items()
    )


def sides(text: str) -> tuple[int, int] | None:
    """Returns (height, width) of --image_size=N or H,W; None for 0."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) not in (1, 2) or not (found == [0] or 1 <= min(found) <= max(found) <= MOST_SIDE):
        raise errors.InputError(
            f"--image_size={text} must be pixels a side, or HEIGHT,WIDTH; 0: as the source has them"
        )
    return None if found == [0] else (found[0], found[-1])


def main() -> int:
    """Reads the flags, prepares, says what was made, and returns the exit code."""
    return exit_codes.of(_command, again=True)


def _command() -> None:
    print(run(parse(sys.argv)))


if __name__ == "__main__":
    exit_codes.leave(main())
