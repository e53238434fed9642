"""The command that plans: python -m pipeline.plan --config=… --topology=v5e:16x16.

It compiles the step that `train` runs for machines that are not present. It reports what the step
needs there: memory, collectives, input, and a range of speeds.

Exit codes: 0 it fits; 2 a mistake in the input, or a step that does not fit; 3 a budget
(--max_collectives, --max_gib) is exceeded; 1 a fault.
"""

import sys
from collections.abc import Sequence
from typing import Any

from pipeline.performance import figures_file, topologies
from pipeline.runtime import command_line, errors, exit_codes, flags, output

OVER_BUDGET = 3
COMMAND = command_line.Command(
    "pipeline.plan",
    "Compiles a step for machines that aren't there, and says what it needs of them.",
    (
        *flags.CONFIG,
        flags.Flag("topology", "NAME", "machines: v5e:16x16, 4*v5e:16x16, h100:1x8x8, cpu:8, …",
                   shown="needed"),
        flags.choice("effort", ("quick", "full"), "how hard the compiler tries"),
        flags.Flag("sweep", "batch=N,N,…", "plans batches of so many examples a device", ""),
        flags.integer("max_collectives", "budget: number of collectives"),
        flags.Flag("max_gib", "X", "budget: GiB of memory a device", kind="float"),
        flags.JSON,
    ),
    (
        "--config=configs/beta_vae.py --topology=v5e:16x16",
        "--config=configs/vq_vae.py --topology=cpu:8 --sweep=batch=64,128",
    ),
    instead="--config.field=value",
    codes="0 it fits, 2 it doesn't or a mistake in the input, 3 a budget is exceeded, 1 a fault",
)  # fmt: skip


def parse(arguments: Sequence[str]) -> Any:
    """Parses `sys.argv` and returns absl's values; `config` is the locked config.

    Raises:
        InputError: an unknown flag or config field, or a value that cannot work.
    """
    return COMMAND.parse(arguments)


def _topology(arguments: Sequence[str]) -> str:
    """Returns --topology without absl: its value sets up the environment that JAX is imported in.

    Raises:
        InputError: the flag is missing.
    """
    for name, value in command_line.assigned(arguments):
        if name == "topology":
            return value
    raise errors.InputError("--topology is needed: v5e:16x16, 4*v5e:16x16, h100:1x8x8, cpu:8, …")


def run(values: Any, asked: topologies.Asked) -> int:
    """Plans, shows the table, writes the JSON, and returns the exit code."""
    from pipeline.display import terminal
    from pipeline.performance import planning, roofline

    screen = terminal.Terminal()
    topology = topologies.load(asked)
    planning.set_effort(values.effort, topology)
    plans, largest, code = [], None, 0
    for batch_size in planning.sweep(values.sweep, values.config, topology):
        ready = planning.prepare(values.config, topology, batch_size)
        plan = planning.plan(ready, topology)
        plans.append(plan)
        screen.table(f"{topology.name}, batch {batch_size:,}", planning.rows(plan, topology))
        code = _judge(plan, values, screen)
        if code:
            break
        largest = batch_size
    if topology.chip.bfloat16:
        screen.note(f"Assumed: {roofline.ASSUMED}.")
    if values.json:
        figures_file.write(flags.path(values.json), plans)
    else:
        output.check_kept("--json=FILE writes the figures to a file")
    if values.sweep and largest:
        screen.note(f"The largest batch that fits: {largest:,}")
        return 0
    return code


def _judge(plan: dict[str, Any], values: Any, screen: Any) -> int:
    """Warns if the plan does not fit or exceeds a budget, and returns its exit code."""
    if not plan["fits"]:
        screen.warn("it does not fit")
        return exit_codes.MISTAKE
    if plan["share_of_memory"] > 0.85:
        screen.warn(f"{100 * plan['share_of_memory']:.0f} % of the device's memory: little is left")
    code, num, most = 0, len(plan["collectives"]), values.max_collectives
    if most is not None and num > most:
        screen.warn(f"{num} collectives exceed --max_collectives={most}")
        code = OVER_BUDGET
    gib = plan["memory"]["total"] / 2**30
    if values.max_gib is not None and gib > values.max_gib:
        screen.warn(f"{gib:.2f} GiB a device exceed --max_gib={values.max_gib:g}")
        code = OVER_BUDGET
    return code


def main() -> int:
    """Reads the flags, prepares the compiler, plans, and returns the exit code."""
    return exit_codes.of(_command)


def _command() -> int:
    COMMAND.answer(sys.argv)
    asked = topologies.parse(_topology(sys.argv))
    topologies.prepare(asked)  # JAX reads the environment when it is imported
    return run(parse(sys.argv), asked)


if __name__ == "__main__":
    exit_codes.leave(main())
