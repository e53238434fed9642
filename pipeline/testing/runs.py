"""Training runs of the model in several layouts, whose losses must be the same."""

from typing import Any, NamedTuple

import jax
import numpy as np

from pipeline.mesh import layouts, sharding
from pipeline.testing.model_error import COUPLED, require_equal
from pipeline.testing.subjects import NUM, Subject
from pipeline.training import step

TOLERANCE = 1e-5  # of losses and norms of gradients
SHARDS = 4
FIGURES = ("loss", "grad_norm")


class Layout(NamedTuple):
    """How a run cuts its batch and its state."""

    devices: int = 1
    fsdp: int = 1
    accumulation: int = 1
    shards: int = 0

    def __str__(self) -> str:
        """Returns, for example, "2 devices with fsdp=2"."""
        parts = [f"{self.devices} device{'s' * (self.devices > 1)}"]
        parts += [f"fsdp={self.fsdp}"] if self.fsdp > 1 else []
        parts += [f"accumulation_steps={self.accumulation}"] if self.accumulation > 1 else []
        parts += [f"deterministic_shards={self.shards}"] if self.shards else []
        return parts[0] + (f" with {' and '.join(parts[1:])}" if parts[1:] else "")


class Trained(NamedTuple):
    """What a run computed, on the host."""

    state: Any  # the last one, as a tree
    metrics: list[dict[str, Any]]  # of all steps


def check(subject: Subject, straight: Trained) -> tuple[list[str], list[str]]:
    """Returns what was checked and what was skipped, or raises a ModelError."""
    num = len(subject.devices)
    close = [Layout(accumulation=2), Layout(shards=SHARDS)]
    if num > 1:
        close += [Layout(devices=num), Layout(devices=num, fsdp=2, accumulation=2)]
    found = {}
    for layout in close:
        found[layout] = trained(subject, layout)
        for one, other in zip(found[layout].metrics, straight.metrics, strict=True):
            text = f"differs between {Layout()} and {layout}"
            figures, expected = ({name: each[name] for name in FIGURES} for each in (one, other))
            require_equal(figures, expected, text, tolerance=TOLERANCE, repair=COUPLED)
    checked = [f"losses are equal on {layout}" for layout in close]
    if num == 1:
        kinds = ("several devices", "fsdp", "equal bits with deterministic_shards")
        return checked, [f"{kind}: devices=1, and this needs 2 or 4" for kind in kinds]
    layout = Layout(devices=num, shards=SHARDS)
    text = f"has other bits on {layout} than on one device"
    repair = "let nothing depend on the number of devices or processes"
    ordered = found[Layout(shards=SHARDS)]
    require_equal(trained(subject, layout), ordered, text, tolerance=0, repair=repair)
    return [*checked, f"bits are equal on {layout}"], []


def trained(subject: Subject, layout: Layout) -> Trained:
    """Trains `subject.steps` steps from the first state, always on the same batch."""
    run = Run(subject, layout)
    state, logged = run.first_state(), []
    for _ in range(subject.steps):
        state, metrics = run.step(state)
        logged.append(metrics)
    return Trained(jax.device_get(layouts.to_tree(state)), logged)


class Run:
    """The step of a model in one layout, in a program of its own, with its batch."""

    def __init__(self, subject: Subject, layout: Layout):
        """Lays the batch over the first devices of the subject."""
        self.subject, devices = subject, subject.devices[: layout.devices]
        self.mesh = sharding.make_mesh({"data": -1, "fsdp": layout.fsdp}, devices=devices)
        self.config = subject.config.copy_and_resolve_references()
        self.config.accumulation_steps = layout.accumulation
        self.config.deterministic_shards = layout.shards
        self.config.mesh.fsdp = layout.fsdp
        batch = {**subject.batch, "mask": np.ones(NUM, np.float32)}
        given = (batch, np.zeros(self.mesh.size, np.float32))
        self.given = jax.device_put(given, sharding.batch_sharded(self.mesh))
        self.compiled = step.make_train_step(self.config, subject.example, self.mesh)

    def abstract(self) -> Any:
        """Returns the state's tree of shapes and dtypes."""
        return step.abstract_state(self.config, self.subject.example)

    def first_state(self) -> Any:
        """Returns the state of step 0, which one program makes for all layouts."""
        there = layouts.of_tree(self.abstract(), self.mesh)
        there = jax.tree.map(lambda leaf: leaf.sharding, there)
        return layouts.from_tree(jax.device_put(self.subject.first, there), self.mesh)

    def step(self, state: Any) -> tuple[Any, dict[str, Any]]:
        """Returns the next state, and the metrics on the host."""
        state, metrics, _ = self.compiled(state, *self.given)
        return state, jax.device_get(metrics)
