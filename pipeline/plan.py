"""The command that plans: python -m pipeline.plan --config=… --topology=v5e:16x16.

Compiles the very step that `train` runs for machines that aren't there, and says what it would need
of them: memory, collectives, input, and a range of speeds. Exit codes: 0; 2 a mistake in the input,
or a step that doesn't fit; 3 a budget (--max_collectives, --max_gib) is exceeded; 1 a fault.
"""

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from pipeline.performance import topologies
from pipeline.runtime import errors, exit_codes

OVER_BUDGET = 3


def parse(arguments: Sequence[str]) -> Any:
    """Returns the flags' values, with `config` the locked config.

    Raises:
        InputError: an unknown flag or config field, or a value that can't work.
    """
    from pipeline.runtime import command_line

    values = absl_flags.FlagValues()
    absl_flags.DEFINE_string("topology", None, "Machines: v5e:16x16.", flag_values=values)
    absl_flags.DEFINE_enum(
        "effort", "quick", ["quick", "full"], "Of the compiler.", flag_values=values
    )
    absl_flags.DEFINE_string("sweep", "", "batch=64,128,… a device.", flag_values=values)
    absl_flags.DEFINE_integer("max_collectives", None, "Budget: number.", flag_values=values)
    absl_flags.DEFINE_float("max_gib", None, "Budget: memory a device.", flag_values=values)
    absl_flags.DEFINE_string("json", None, "File for the figures.", flag_values=values)
    command_line.parse_config(arguments, values, command="pipeline.plan")
    return values


def _topology(arguments: Sequence[str]) -> str:
    """Returns the flag's value: it decides about the environment that JAX is imported in."""
    for text, following in itertools.pairwise([*arguments, ""]):
        name, equals, value = text.lstrip("-").partition("=")
        if name == "topology":
            return value if equals else following
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
        path = Path(values.json).expanduser().absolute()
        with errors.writing(path.parent):
            path.write_text(json.dumps(plans, indent=2) + "\n")
    if values.sweep and largest:
        screen.note(f"The largest batch that fits: {largest:,}")
        return 0
    return code


def _judge(plan: dict[str, Any], values: Any, screen: Any) -> int:
    """Says what speaks against the plan, and returns the exit code that it deserves."""
    if not plan["fits"]:
        screen.warn("it does not fit")
        return 2
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
    """Reads the flags, prepares the compiler, plans."""
    return exit_codes.of(_command)


def _command() -> int:
    asked = topologies.parse(_topology(sys.argv))
    topologies.prepare(asked)  # before JAX is imported
    return run(parse(sys.argv), asked)


if __name__ == "__main__":
    exit_codes.leave(main())
