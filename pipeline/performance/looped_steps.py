"""A work's step in the loops that the pipeline has, timed in turn with the plain step."""

import math
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from pipeline.mesh import sharding
from pipeline.performance import timing
from pipeline.performance.frameworks import works
from pipeline.performance.sections import machine
from pipeline.training import dispatch, step

PLAIN = "a plain step"
# Changes to a work's config, and over how much memory they pass beside a plain step's, in multiples
# of the parameters' bytes. Each further part reads all parameters twice and writes their gradients
# once. Accumulation adds each to a sum: two reads and one write. Shards must
# at least be read once more.
PASSES = {"accumulation_steps=4": 3 * (3 + 3), "deterministic_shards=8": 7 * 3 + 8}
FORMS = (PLAIN, *PASSES, "steps_per_dispatch=5")
ROUND_SECONDS = 0.5  # the least time of a round


class Form(NamedTuple):
    """A compiled form of a work's step, with its state."""

    take_steps: dispatch.Dispatcher
    arrays: list[list[jax.Array]]  # one element, the state's arrays, which each call replaces
    batch: Any
    stop: jax.Array
    together: int  # steps in a dispatch
    compile_seconds: float
    temporaries: int  # bytes of the single step

    def run(self, num: int) -> None:
        """Takes `num` steps, or a few more to fill the last dispatch, and waits for them."""
        batches = [self.batch] * self.together
        for _ in range(math.ceil(num / self.together)):
            taken = self.take_steps(self.arrays.pop(), batches, self.stop)
            self.arrays.append(taken[0])
        jax.block_until_ready(taken)


def start(work: works.Work) -> Form:
    """Compiles the work's step for one device as its config says, and takes one dispatch."""
    config = work.config
    mesh = sharding.make_mesh({}, devices=jax.devices()[:1])
    take_steps = dispatch.Dispatcher(config, work.example, mesh)
    cut = sharding.batch_sharded(mesh)
    batch = jax.device_put(work.batch() | {"mask": np.ones(config.batch_size, np.float32)}, cut)
    stop = jax.device_put(np.zeros(mesh.size, np.float32), cut)
    arrays = take_steps.arrays(step.drawn_state(config, work.example, mesh))
    form = Form(take_steps, [arrays], batch, stop, take_steps.most, 0.0, 0)
    began = time.perf_counter()
    form.run(1)
    seconds = time.perf_counter() - began
    single = take_steps.trace(form.arrays[0], batch, stop).lower().compile().memory_analysis()
    return form._replace(compile_seconds=seconds, temporaries=single.temp_size_in_bytes)


def compare(work: str, rounds: int) -> dict[str, dict[str, Any]]:
    """Times every form of a work, in turn.

    Returns:
        {form: `ms` a step, its `ratio` to the plain step's with quartiles, `compile_s` of its first
        call, `temporaries_mib`, and the ratio `bound`, for which see there}.
    """
    started = {name: start(works.make(work, "" if name == PLAIN else name)) for name in FORMS}
    began = time.perf_counter()
    started[PLAIN].run(5)
    # A multiple of all dispatches, so that all forms take the same number of steps.
    num = 5 * max(1, math.ceil(ROUND_SECONDS / (time.perf_counter() - began)))
    candidates = {name: lambda form=form: form.run(num) for name, form in started.items()}
    seconds = timing.in_turn(candidates, rounds=rounds)
    plain = timing.median(seconds[PLAIN]) / num
    num_bytes = _num_bytes(works.make(work))
    return {
        name: {
            "ms": 1000 * timing.median(seconds[name]) / num,
            "ratio": timing.ratio(seconds, name, PLAIN),
            "compile_s": form.compile_seconds,
            "temporaries_mib": form.temporaries / 2**20,
            "bound": bound(name, num_bytes, plain),
        }
        for name, form in started.items()
    }


def bound(form: str, num_bytes: int, plain: float) -> float:
    """Returns the ratio to a plain step of `plain` seconds if only `PASSES` were added.

    Bytes move at the rate of a large copy; parameters that stay in a cache move faster.

    Args:
        form: its name.
        num_bytes: of all parameters.
        plain: seconds.
    """
    rate = machine.peak(jax.devices()[0], "float32").bytes
    return 1 + PASSES.get(form, 0) * num_bytes / rate / plain


def _num_bytes(work: works.Work) -> int:
    """Returns the size of all parameters."""
    params = step.abstract_state(work.config, work.example).params
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
