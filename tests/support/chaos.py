"""Chaos: runs of all variants are hurt at random times, and must end like unhurt runs.

python -m tests.support.chaos --faults=50

Every restart has another topology; `deterministic_shards` makes results comparable bit by bit.
With --shards=0 every topology adds up in its own order, and losses agree to 1e-5. The command
prints what was done to the runs and what it cost, and exits with 1 if a run differs. `faults` says
what is done to them.
"""

import argparse
import collections
import json
import os
import random
import shutil
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline import datasets
from pipeline.runtime import registry, run_config
from pipeline.training import batching
from tests.support import code_folders, faults, processes
from tests.support.runs import scalars

HARDER = {  # what makes a variant harder to resume
    "vq_vae": ("--config.model.quantizer.restart_steps=5", "--config.data.variance=0.04"),
}
VARIANTS = {
    name: (f"{name}.py:sprites,smoke", *HARDER.get(name, ())) for name in registry.names("models")
} | {
    "code_prior": ("code_prior.py:smoke", "--config.batch_size=64"),
    "vq_gan": (
        *("vq_vae.py:sprites,smoke", *HARDER["vq_vae"]),
        *("--config.model.adversarial.weight=0.1", "--config.model.adversarial.channels=8"),
        *(
            "--config.model.adversarial.regularization=lecam",
            "--config.model.adversarial.start_step=5",
        ),
        "--config.model.adversarial.regularization_weight=0.001",
    ),
}
TOPOLOGIES = [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1)]  # processes × devices each
SHARDS = 4
END_SECONDS = 90
RESTING_SHARE = 0.3  # of the starts follow a fault that was done while nothing ran
SILENT_SHARE = 0.2  # of the starts have a stdout that nobody reads
# Runs before the command: records the rows of each step in this process, and slows it down.
NOTING = """
import json, os, time, zlib
import numpy as np
from pipeline.training import batching
original = batching.ahead
def batches(source, config, mesh, *, first_step):
    with open({path!r} + str(os.getpid()), "a") as notes:
        for number, batch in enumerate(original(source, config, mesh, first_step=first_step)):
            examples = batch.get("image", batch.get("codes"))
            for shard in examples.addressable_shards:
                first = shard.index[0].start or 0
                rows = [zlib.crc32(row.tobytes()) for row in np.asarray(shard.data)]
                print(json.dumps([first_step + number, first, rows]), file=notes, flush=True)
            time.sleep({pause})
            yield batch
batching.ahead = batches
from pipeline import train
os._exit(train.main())
"""


class Run:
    """A run of one variant that loses processes until it is complete."""

    def __init__(self, variant, folder, *, steps, pause, shards):
        self.config, *extra = VARIANTS[variant]
        self.workdir, self.notes = folder / "run", folder / "notes"
        self.cache = Path(os.environ["XDG_CACHE_HOME"])
        self.hurt_points = False  # whether a file of TensorBoard was damaged
        self.notes.mkdir(parents=True)
        self.arguments = [
            *extra,
            f"--config.total_steps={steps}",
            f"--config.deterministic_shards={shards}",
            "--config.log_every_steps=5",
            "--config.grace_seconds=60",  # a first step takes this long on a slow machine
            "--config.checkpoint.every_steps=10",
        ]
        if variant == "code_prior":
            codes = code_folders.write(folder / "codes")
            self.arguments.append(f"--config.data.path={codes}")
        self.command = ("-c", NOTING.format(path=f"{self.notes}/", pause=pause))

    def start(self, topology, *, silent=False):
        count, devices = topology
        options = {"processes": count, "devices": devices, "config": self.config, "silent": silent}
        return processes.start(self.workdir, *self.arguments, command=self.command, **options)

    def last_step(self):
        """Returns the number of steps begun so far."""
        return max((note[0] + 1 for note in self.read_notes()), default=0)

    def checkpoint(self):
        names = [path.name for path in (self.workdir / "checkpoints").glob("*")]
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def put_back(self):
        """Puts back what a fault moved away under running processes."""
        for kept in self.workdir.parent.glob("*-kept"):
            place = self.workdir / kept.name.removesuffix("-kept")
            place.mkdir(parents=True, exist_ok=True)
            for path in kept.iterdir():  # what was saved meanwhile stays
                if not (place / path.name).exists():
                    path.rename(place / path.name)
            shutil.rmtree(kept)

    def read_notes(self):
        lines = [line for path in self.notes.iterdir() for line in path.read_text().splitlines()]
        return [json.loads(line) for line in lines if line.endswith("]")]

    def results(self):
        """Returns the digests of the last state, and all points but timings."""
        import jax
        import orbax.checkpoint as ocp

        folder = self.workdir / "checkpoints" / str(self.checkpoint()) / "default"
        reader = ocp.StandardCheckpointer()
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # whatever topology saved it
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
            reader.metadata(folder).item_metadata.tree,
        )
        return np.asarray(reader.restore(folder, target)["digests"]), scalars(self.workdir)

    def check_examples(self, steps):
        """Checks that every start gave every step its rows of the one order, and left none out."""
        config = run_config.load(self.workdir)
        source = datasets.load(config).train
        size = config.batch_size
        order = batching.indices(
            len(source), seed=config.seed, batch_size=size, first_step=0, process=0, processes=1
        )
        expected = [
            [zlib.crc32(np.ascontiguousarray(row)) for row in read[name]]
            for k in range(steps)
            for read in [batching.read(source, order[k], config)]
            for name in ("image", "codes")
            if name in read
        ]
        seen = np.zeros((steps, size), bool)
        for step, first, rows in self.read_notes():
            if step < steps:  # batches are read ahead
                assert rows == expected[step][first : first + len(rows)], (step, first)
                seen[step, first : first + len(rows)] = True
        assert seen.all(), "examples were left out"


def hurt(run, draw, tally, most):
    """Starts the run until it is complete, and hurts it at most `most` times; returns how often."""
    count = 0
    while True:
        undo = None
        if count < most and draw.random() < RESTING_SHARE:
            name = draw.choice(list(faults.RESTING))
            if done := faults.RESTING[name](run, draw):
                place, undo = done
                count += 1
                tally[name].append((0, 0.0))
        group = run.start(draw.choice(TOPOLOGIES), silent=not undo and draw.random() < SILENT_SHARE)
        if undo and is_refused(group, place):
            undo()
            continue
        group, added, complete = hurt_while_it_runs(run, group, draw, tally, most - count)
        count += added
        if complete:
            return count


def is_refused(group, place):
    """Waits for the first step; says whether the processes refused to run because of `place`."""
    while not any("The first step was done" in process.output for process in group):
        if all(process.poll() is not None for process in group):
            if {process.returncode for process in group} == {0}:
                return False
            outputs = [process.output for process in group]
            assert {process.returncode for process in group} <= {1, 2}, (place, outputs)
            assert "Traceback" not in "".join(outputs), (place, outputs)
            assert "error: " in outputs[0], (place, outputs)
            return True
        time.sleep(0.02)
    return False


def hurt_while_it_runs(run, group, draw, tally, most):
    """Hurts processes until a fault ends them; returns them, how often, and if all is complete."""
    count = 0
    while True:
        if count == most:
            found = processes.codes(group, timeout=300)
            assert set(found) == {0}, [process.output[-2000:] for process in group]
            return group, count, True
        fault = draw.choice((*faults.ENDING, *faults.HARMLESS))
        end = time.monotonic() + draw.uniform(*((0.0, 3.0) if fault.early else (1.0, 14.0)))
        while time.monotonic() < end and all(process.poll() is None for process in group):
            time.sleep(0.01)
        hit, began = all(process.poll() is None for process in group), time.monotonic()
        if not hit:
            found = processes.codes(group, timeout=END_SECONDS)
            assert set(found) == {0}, [process.output[-2000:] for process in group]
            return group, count, True
        other = fault.act(run, group, draw)
        if fault.codes:
            found = processes.codes(group, timeout=END_SECONDS)
            run.put_back()
            outputs = [process.output[-2000:] for process in group]
            if set(found) == {0}:  # it was complete before the fault
                return group, count, True
            # A process that was not hurt may say 1 for a lost one; none may say "complete".
            assert set(found) <= {*fault.codes, 2 if fault.early else 75}, (fault, found, outputs)
            killed = "SIGKILL" in fault.name
            lost = max(0, run.last_step() - run.checkpoint()) if killed else 0
            tally[fault.name].append((lost, time.monotonic() - began))
            return group, count + 1, False
        group = other or group
        tally[fault.name].append((0, time.monotonic() - began))
        count += 1


def check_results(run, straight, shards):
    """Compares state and points with those of the unhurt run."""
    (digests, points), (whole_digests, whole) = run.results(), straight
    if run.hurt_points:  # a damaged record is lost, and a warning named it
        assert all(set(series) <= set(whole[tag]) for tag, series in points.items())
        whole = {tag: [p for p in whole[tag] if p in points[tag]] for tag in points}
    assert points.keys() == whole.keys()
    if shards:
        np.testing.assert_array_equal(digests, whole_digests, err_msg="the state differs")
        assert points == whole, "the logged points differ"
    for tag, series in whole.items():
        np.testing.assert_allclose(points[tag], series, rtol=1e-4, atol=1e-6, err_msg=tag)
    for tag in {"train/loss", "heldout/loss"} & whole.keys():
        np.testing.assert_allclose(points[tag], whole[tag], rtol=1e-5, err_msg=tag)


def chaos(
    folder,
    *,
    hits,
    steps,
    pause,
    seed,
    shards=SHARDS,
    variants=tuple(VARIANTS),
    most=6,
    log=print,
):
    """Hurts runs of the variants in turn, `hits` times in all; returns {fault: [lost, …]}."""
    draw, tally = random.Random(seed), collections.defaultdict(list)
    straight = {}
    done = number = 0
    while done < hits:
        variant = variants[number % len(variants)]
        if variant not in straight:
            whole = folder / f"{variant}-straight"
            reference = Run(variant, whole, steps=steps, pause=0.0, shards=shards)
            assert processes.codes(reference.start((1, 2)), timeout=300) == [0]
            straight[variant] = reference.results()
        name = folder / f"{variant}-{number}"
        run = Run(variant, name, steps=steps, pause=pause, shards=shards)
        hurts = hurt(run, draw, tally, min(most, hits - done))
        check_results(run, straight[variant], shards)
        run.check_examples(steps)
        done, number = done + hurts, number + 1
        same = "same state and points bit by bit" if shards else "same losses to 1e-5"
        log(f"{variant}: {hurts} faults, {same}, same examples ({done})")
    return tally


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--faults", type=int, default=50, dest="hits")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds before each step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, default=SHARDS, help="0: without")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"  # which is damaged too
        tally = chaos(Path(folder), **vars(options))
    table = Table(
        "fault", "times", "steps lost (mean)", "steps lost (most)", "seconds to end (mean)"
    )
    for kind, costs in sorted(tally.items()):
        lost, seconds = np.array(costs).T
        cells = (len(lost), f"{lost.mean():.1f}", f"{lost.max():.0f}", f"{seconds.mean():.1f}")
        table.add_row(kind, *map(str, cells))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
