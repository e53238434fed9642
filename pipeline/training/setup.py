"""The front door: a config checked against these devices and this data, before anything is built.

Train, plan, benchmark and evaluate all come in here. So each refuses what the others refuse, with
the same line, and none compiles before everything that a user can repair was checked.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from jax.sharding import Mesh

from pipeline import datasets
from pipeline.mesh import sharding
from pipeline.runtime import errors, registry, run_config
from pipeline.training import batching, dispatch, evaluation, guard, step, variance


class Setup(NamedTuple):
    """A config that can run here: checked, with what follows from it."""

    config: Any  # locked; its dtype is named, and its variance is measured once data are open
    given: Any  # the same as the run's folder keeps it: a variance of 0 is measured at each start
    mesh: Mesh
    example: Any  # one abstract example of the data set
    abstract: step.TrainState  # shapes and types of the state
    evaluations: tuple[ModuleType, ...]  # those that training runs, in the order of `config.evals`
    splits: datasets.Splits | None  # None: the data are not open

    @property
    def opened(self) -> datasets.Splits:
        """The open data; to ask for them before `with_data` is a mistake in the code."""
        assert self.splits is not None, "the data are not open yet: call setup.with_data"
        return self.splits


def prepare(
    config: Any, *, workdir: Path | None = None, devices: Any = None, open_data: bool = True
) -> Setup:
    """Checks everything about a training run that a user can repair, the cheapest first.

    Args:
        config: of the run, locked.
        workdir: where the run may lie already: its dtype is kept; None: there is none.
        devices: of the mesh; None: all devices of all processes. Devices of a topology description
            can be planned for.
        open_data: opens the data, too. Without them a variance of 0 stands as 1: it is a number in
            the program, and its value changes no cost.

    Raises:
        InputError: something in the config can't work; nothing was compiled or written.
    """
    run_config.check(config)
    guard.check(config.guard)
    dispatch.check(config)
    mesh = sharding.make_mesh(config.mesh, devices=devices)
    config = run_config.settled(config, mesh.devices.flat[0].platform, workdir)
    batching.check_batch(config, mesh)
    if config.eval_batch_size:
        batching.check_eval_batch(config, mesh)
    ready = _described(config, mesh)
    evaluations = tuple(registry.load("evals", name, field="evals") for name in config.evals)
    evaluation.check_best_metric(ready.config, ready.example, mesh, ready.abstract)
    ready = ready._replace(evaluations=evaluations)
    return with_data(ready) if open_data else ready


def prepare_evaluation(
    config: Any,
    *,
    batch_size: int = 0,
    devices: Any = None,
    note: Callable[[str], None] = lambda text: None,
) -> Setup:
    """Prepares a saved run to be evaluated on all devices at hand, whatever the run's mesh was.

    Figures depend on the size of a batch only in their last bits. So the run's own size is kept if
    these devices can divide it, and is rounded up if they can't.

    Args:
        config: of the run, locked.
        batch_size: examples of a batch over all devices; 0: the run's.
        devices: to evaluate on; None: all devices of all processes.
        note: told what differs from the run.

    Raises:
        InputError: these devices can't divide `batch_size`, or the config can't work.
    """
    run_config.check(config)
    mesh = sharding.make_mesh({"data": -1}, devices=devices)
    config = config.copy_and_resolve_references().unlock()
    wanted = batch_size or config.eval_batch_size or config.batch_size
    config.eval_batch_size = wanted if batch_size else -(-wanted // mesh.size) * mesh.size
    try:
        batching.check_eval_batch(config, mesh)
    except errors.InputError as error:
        if not config.deterministic_shards:
            raise
        note(f"last bits may differ from the run's: {error}")
        config.deterministic_shards = 0
        batching.check_eval_batch(config, mesh)
    config = run_config.settled(config.lock(), mesh.devices.flat[0].platform)
    return _described(config, mesh)


def with_data(ready: Setup) -> Setup:
    """Opens the data if they are not, and measures their variance if the config asks for it.

    Raises:
        InputError: the files are missing or damaged, or too few examples are left to train on.
    """
    if ready.splits is not None:
        return ready
    splits = datasets.load(ready.given)
    config = variance.measured(ready.given, splits.train)
    return ready._replace(config=config, splits=splits)


def cautions(config: Any) -> list[str]:
    """Returns warnings of the variant's author for settings that work, but surprise."""
    variant = registry.load("models", config.model.name, field="model.name")
    return variant.cautions(config) if hasattr(variant, "cautions") else []


def _described(given: Any, mesh: Mesh) -> Setup:
    """Returns the setup without data; a variance that is to be measured stands as 1."""
    config = given
    if not config.data.variance:
        config = config.copy_and_resolve_references().unlock()
        config.data.variance = 1.0
        config.lock()
    example = datasets.example_spec(config)
    abstract = step.abstract_state(config, example)
    return Setup(config, given, mesh, example, abstract, (), None)
