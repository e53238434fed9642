"""The step with other fields in the config, in turn with the step of the config itself."""

import math
from collections.abc import Callable
from typing import Any

from pipeline.performance import timing
from pipeline.performance.bench import Bench, compiled_step, first_state, prepare, stepper
from pipeline.runtime import run_config
from pipeline.training import dispatch


def measure(bench: Bench) -> dict[str, Any]:
    """Returns the other step's time and its ratio to this one's; {} without `--against`.

    Raises:
        InputError: a field does not exist, or its value cannot work.
    """
    changes = bench.options.against
    if not changes:
        return {}
    # Prepared from scratch, because a field may change the batch or the data.
    config = run_config.changed(bench.ready.config, changes)
    other = prepare(bench.options._replace(config=config))
    # A round must hold whole dispatches of both, so that both take the same number of steps.
    _, num = stepper(bench, compiled_step(bench))
    both = {"one": (bench, _dispatcher(bench)), "two": (other, _dispatcher(other))}
    together = math.lcm(*(take_steps.most for _, take_steps in both.values()))
    num = math.ceil(num / together) * together
    runs = {name: _dispatches(*each, num) for name, each in both.items()}
    rounds = timing.in_turn(runs, rounds=2 * bench.options.rounds)
    return {
        f"ms a step with {changes}": 1000 * timing.median(rounds["two"]) / num,
        "over this config's step": timing.ratio(rounds, "two", "one"),
    }


def _dispatcher(bench: Bench) -> dispatch.Dispatcher:
    return dispatch.Dispatcher(bench.ready.config, bench.ready.example, bench.ready.mesh)


def _dispatches(bench: Bench, take_steps: dispatch.Dispatcher, num: int) -> Callable[[], None]:
    """Returns a function that runs `num` steps, as many per dispatch as a run does."""
    take_steps.arrays(first_state(bench))  # from which it learns the tree that the arrays are of
    several = bench._replace(batch=[bench.batch] * take_steps.most)
    return stepper(several, take_steps, num=num // take_steps.most)[0]
