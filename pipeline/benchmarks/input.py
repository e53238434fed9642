"""The input pipeline alone, from the data set to the devices."""

from typing import Any

import jax

from pipeline import data
from pipeline import measure as timing
from pipeline.bench import Bench

LEAST = 20_000  # images a round


def measure(bench: Bench) -> dict[str, Any]:
    """Returns images a second; a round reads far more than is read ahead between rounds."""
    config = bench.config
    batches = data.train_batches(bench.source, config, bench.mesh, first_step=0)
    num = max(8 * config.data.prefetch_batches, LEAST // config.batch_size)

    def read() -> None:
        for _ in range(num):
            jax.block_until_ready(next(batches))

    rounds = timing.in_turn({"read": read}, rounds=bench.options.rounds)
    return {"images/s": num * config.batch_size / timing.median(rounds["read"])}
