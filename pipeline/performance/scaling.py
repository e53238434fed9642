"""The command that rebuilds the table of how every variant scales: `make scaling`.

It plans each config on each topology, and gives every chip as many examples as the config has in
all. Then it writes the table between two marks of the `README.md` beside this file. Nothing is run.
Exit codes: 0 complete; 2 a compiler is missing, and the message names the extra that installs it;
130 after Ctrl-C; 1 a fault.
"""

import importlib
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.display import marked_pages
from pipeline.performance import topologies
from pipeline.runtime import command_line, exit_codes, registry

COMMAND = command_line.Command(
    "pipeline.performance.scaling",
    "Plans every variant for pods and GPU nodes, and rewrites the table of how they scale.",
    (),
    ("",),
    instead="nothing",
    codes="0 complete, 2 a compiler is missing, 130 after Ctrl-C, 1 a fault",
)
# Every variant has a config of its name; that of a prior needs the codes of a run.
CONFIGS = [name for name in registry.names("models") if name != "code_prior"]
# v5p-4096 is v5p:8x16x16: its name counts cores, and a chip has two.
TOPOLOGIES = (
    "v5e:4x4",
    "v5e:16x16",
    "16*v5e:16x16",
    "v5p:8x16x16",
    "h100:1x1x8",
    "h100:1x32x8",
)
HEADER = (
    "config, batch a chip | topology, chips | fits, MiB a chip | collectives "
    "| images/s a chip, compiled, not run | efficiency"
)
README = Path(__file__).with_name("README.md")
PART = "scaling"  # of that page, between two marks


def row(config: str, batch_size: int, plan: dict[str, Any]) -> str:
    """Returns the table's line for a plan of `batch_size` examples a chip."""
    where = f"`{plan['topology']}`, {plan['devices']:,}"
    start = f"| `{config}`, {batch_size} | {where} |"
    if not plan["fits"]:
        return f"{start} no: {plan['reason']} | – | – | – |"
    exchanges = ", ".join(
        f"{each['kind']} of {each['elements']:,} {each['dtype']}" for each in plan["collectives"]
    )
    slow, fast = (rate / plan["devices"] for rate in plan["images_per_second"])
    least, most = (100 * share for share in plan["efficiency"])
    memory = f"yes, {plan['memory']['total'] / 2**20:,.0f}"
    speed = f"{slow:,.0f} to {fast:,.0f} | {least:.0f} to {most:.0f} %"
    return f"{start} {memory} | {exchanges} | {speed} |"


def table() -> list[str]:
    """Plans every config on every topology, and returns the table's lines.

    Raises:
        InputError: a compiler is missing.
    """
    asked = [topologies.parse(name) for name in TOPOLOGIES]
    for each in asked:
        topologies.prepare(each)  # JAX reads the environment when it is imported, below
    from pipeline.display import terminal
    from pipeline.performance import planning

    screen = terminal.Terminal()
    lines = [f"| {HEADER} |", "|" + "---|" * (HEADER.count("|") + 1)]
    for name in CONFIGS:
        config = importlib.import_module(f"configs.{name}").get_config()
        for each in asked:
            began = time.perf_counter()
            topology = topologies.load(each)
            planning.set_effort("quick", topology)
            batch_size = config.batch_size * len(topology.devices)
            plan = planning.plan(planning.prepare(config, topology, batch_size), topology)
            lines.append(row(name, config.batch_size, plan))
            screen.note(f"{lines[-1]} {time.perf_counter() - began:.0f} s")
    return lines


def _command() -> None:
    COMMAND.parse(sys.argv)
    marked_pages.rewrite(README, PART, table())


if __name__ == "__main__":
    exit_codes.leave(exit_codes.of(_command))
