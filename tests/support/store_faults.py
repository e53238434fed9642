"""Runs in a bucket on bad days of the store: they must end bit for bit like runs in a folder.

python -m tests.support.store_faults --faults=50

A proxy answers 429 and 503, cuts uploads, loses answers and delays, while processes are stopped and
killed and go on in other topologies. The command prints what was done, and what a run costs: the
requests a step and the bytes sent. It exits with 1 if a run differs from the one in a folder.
"""

import argparse
import collections
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from rich.console import Console
from rich.table import Table

from pipeline.runtime import registry
from pipeline.runtime.storage import places
from pipeline.runtime.workdir import contents
from tests.support import buckets, processes, store_proxy
from tests.support.runs import scalars

SHARES = {"429": 0.015, "503": 0.015, "cut upload": 0.01, "lost answer": 0.01, "delay": 0.01}
TOPOLOGIES = ((1, 1), (1, 2), (2, 1))  # processes × devices
STEPS, END_SECONDS = 40, 240
STARTS = 12  # of a run, at most
LOST = {0, 75, 1, -9}
# A prior needs a folder of codes, and stores nothing that the others do not.
VARIANTS = [name for name in registry.names("models") if name != "code_prior"]


def results(workdir):
    """Returns the digests of the last state, and all points but timings."""
    folder = workdir / "checkpoints" / str(contents.committed(workdir)[-1]) / "default"
    reader = ocp.StandardCheckpointer()
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
        reader.metadata(folder).item_metadata.tree,
    )
    return np.asarray(reader.restore(folder, target)["digests"]), scalars(workdir)


class Runs:
    """The runs of one variant: the one in a folder, and others in a bucket."""

    def __init__(self, folder, variant):
        self.folder, self.variant = folder, variant
        self.arguments = (
            f"--config.total_steps={STEPS}",
            "--config.deterministic_shards=2",
            "--config.log_every_steps=5",
            "--config.checkpoint.every_steps=10",
            "--config.grace_seconds=60",
        )

    def start(self, workdir, topology=(1, 1)):
        config = f"{self.variant}.py:sprites,smoke"
        options = {"processes": topology[0], "devices": topology[1], "config": config}
        return processes.start(workdir, *self.arguments, logs=self.folder / "logs", **options)

    def straight(self, workdir):
        """Runs without a fault; returns its results."""
        started = self.start(workdir)
        assert processes.codes(started, END_SECONDS) == [0], started[0].output
        return results(workdir)

    def hurt(self, workdir, draw, tally):
        """Stops and kills the run until it is complete."""
        reached = 0
        for _ in range(STARTS):
            group = self.start(workdir, draw.choice(TOPOLOGIES))
            # A start that is stopped has taken a few steps more than the one before.
            reached += 5 * draw.randrange(1, 5)
            end = time.monotonic() + END_SECONDS
            while time.monotonic() < end and all(one.poll() is None for one in group):
                if f"step {reached}/{STEPS}" in group[0].output:
                    break
                time.sleep(0.02)
            if all(one.poll() is None for one in group):
                name = draw.choice(("SIGKILL", "SIGTERM"))
                victim = draw.choice(group)
                victim.wait_until_it_handles(15)
                victim.send_signal(9 if name == "SIGKILL" else 15)
                tally[name] += 1
            codes = processes.codes(group, END_SECONDS)
            outputs = [one.output[-3000:] for one in group]
            assert set(codes) <= LOST, (codes, outputs)
            assert "Traceback" not in "".join(outputs), (codes, outputs)
            if set(codes) == {0}:
                return
        raise AssertionError(f"not complete after {STARTS} starts")


def check(found, expected):
    """Fails if state or points of a run are not those of another."""
    np.testing.assert_array_equal(found[0], expected[0], err_msg="the state differs")
    assert found[1] == expected[1], "the logged points differ"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", nargs="+", default=VARIANTS)
    options = parser.parse_args()
    tally = faults(options.faults, seed=options.seed, variants=options.variants, show=print)
    print(", ".join(f"{count} × {name}" for name, count in sorted(tally.items())))


def faults(most, *, seed, variants, show=lambda text: None):
    """Does at least `most` faults to runs of the variants, in turn; returns what was done."""
    draw, tally, costs = random.Random(seed), collections.Counter(), []
    with (
        tempfile.TemporaryDirectory() as name,
        store_proxy.Proxy(seed=seed) as proxy,
        buckets.gcs(seen_as=proxy.address) as store,
    ):
        proxy.target = store.address
        os.environ |= buckets.gcs_environment(proxy.address)
        expected, number = {}, 0
        while number < len(variants) or tally.total() < most:
            variant = variants[number % len(variants)]
            runs = Runs(Path(name, variant), variant)
            runs.folder.mkdir(exist_ok=True)
            if variant not in expected:
                expected[variant] = runs.straight(runs.folder / "run")
                proxy.reset()
                place = places.of(f"gs://{buckets.NAME}/{variant}/straight")
                check(runs.straight(place), expected[variant])
                costs.append((variant, dict(proxy.counts), proxy.sent, proxy.received))
            place = places.of(f"gs://{buckets.NAME}/{variant}/{number}")
            proxy.shares = SHARES
            runs.hurt(place, draw, tally)
            proxy.shares = {}
            tally += proxy.hurt
            proxy.hurt.clear()
            check(results(place), expected[variant])
            show(f"{variant}: same state and points bit by bit ({tally.total()} faults so far)")
            number += 1
    table = Table("variant", "requests a step", "kinds", "MB sent", "MB received")
    for variant, counts, sent, received in costs:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        each = f"{sum(counts.values()) / STEPS:.1f}"
        table.add_row(variant, each, kinds, f"{sent / 1e6:.1f}", f"{received / 1e6:.1f}")
    if costs:
        Console(width=140).print(table)
    return tally


if __name__ == "__main__":
    sys.exit(main())
