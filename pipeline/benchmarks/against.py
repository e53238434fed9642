"""The bare step with other fields in the config, in turn with the config's own."""

from typing import Any

from pipeline import measure as timing
from pipeline import run_config
from pipeline.bench import Bench, compiled_step, prepare, stepper


def measure(bench: Bench) -> dict[str, Any]:
    """Returns the other step's time, and its ratio; nothing where `--against` isn't given.

    Raises:
        InputError: a field that doesn't exist, or a value that can't work.
    """
    changes = bench.options.against
    if not changes:
        return {}
    # Everything anew: a field may change the batch, or the data.
    config = run_config.changed(bench.config, changes)
    other = prepare(bench.options._replace(config=config))
    one, num = stepper(bench, compiled_step(bench))
    two, _ = stepper(other, compiled_step(other), num=num)
    rounds = timing.in_turn({"one": one, "two": two}, rounds=2 * bench.options.rounds)
    return {
        f"ms a step with {changes}": 1000 * timing.median(rounds["two"]) / num,
        "over this config's step": timing.ratio(rounds, "two", "one"),
    }
