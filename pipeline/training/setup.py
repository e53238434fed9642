"""The front door: a config checked against these devices and this data, before anything is built.

Train, plan, benchmark and evaluate all start here. So each command refuses what the others refuse,
with the same line. None compiles before everything that a user can repair has been checked.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from pipeline import datasets
from pipeline.mesh import sharding
from pipeline.runtime import errors, ranges, reads, registry, run_config
from pipeline.runtime.workdir import saved_config
from pipeline.training import batching, evaluation, guard, replicas, step
from pipeline.training import cautions as own_cautions
from pipeline.training.pixels import augmentations, variance
from pipeline.training.saving import checkpoint_folder


class Setup(NamedTuple):
    """A config that can run here: checked, with what follows from it."""

    config: Any  # locked; its dtype is named, and its variance is measured when data are open
    given: Any  # as the run's folder keeps it: a variance of 0 is measured again at each start
    mesh: Mesh
    example: Any  # one abstract example of the data set
    abstract: step.TrainState  # shapes and types of the state
    evaluations: tuple[ModuleType, ...]  # that training runs, in the order of `config.evals`
    splits: datasets.Splits | None  # None if the data are not open
    asked: Any  # the config as it was given to `prepare`
    seen: set[str]  # the fields that the model, the optimizer and the data set have read

    @property
    def opened(self) -> datasets.Splits:
        """The open data; reading this before `with_data` is a mistake in the code."""
        assert self.splits is not None, "the data are not open yet: call setup.with_data"
        return self.splits


def prepare(
    config: Any, *, workdir: Path | None = None, devices: Any = None, open_data: bool = True
) -> Setup:
    """Checks everything about a training run that a user can repair, cheapest checks first.

    Args:
        config: of the run, locked.
        workdir: where the run may exist already; if it does, its dtype is kept. None: nowhere.
        devices: of the mesh; None: all devices of all processes. For planning they may come from a
            topology description.
        open_data: whether to open the data. Without data, 1 replaces a variance of 0: the variance
            is a number in the program, and its value changes no cost.

    Raises:
        InputError: something in the config cannot work; nothing was compiled or written.
    """
    # These need no device, so a mistake shows before JAX starts one.
    asked = config
    run_config.check(config)
    if workdir is not None:
        checkpoint_folder.check_path(workdir)
    if workdir is None or not saved_config.exists(workdir):
        ranges.check_new_seed(config.seed)
    guard.check(config.guard)
    replicas.check(config)
    mesh = sharding.make_mesh(config.mesh, devices=devices)
    config = run_config.settled(config, mesh.devices.flat[0].platform, workdir)
    batching.check_batch(config, mesh)
    if config.eval_batch_size:
        batching.check_eval_batch(config, mesh)
    ready = _described(config, mesh)
    evaluations = tuple(registry.load("evals", name, field="evals") for name in config.evals)
    augmentations.check(config, ready.example)
    replicas.check_model(ready.config, ready.example)
    abstract = ready.abstract
    if config.replicas > 1:  # each is evaluated by itself
        abstract = jax.eval_shape(replicas.one, abstract, 0)
    evaluation.check_best_metric(ready.config, ready.example, mesh, abstract)
    ready = ready._replace(evaluations=evaluations, asked=asked)
    return with_data(ready) if open_data else ready


def prepare_evaluation(
    config: Any,
    *,
    batch_size: int = 0,
    devices: Any = None,
    example: Any = None,
    note: Callable[[str], None] = lambda text: None,
) -> Setup:
    """Prepares the evaluation of a saved run on all available devices, on any mesh.

    Figures depend on the batch size only in their last bits, except means of coupled terms. So the
    run's own size is kept if these devices divide it, and is rounded up if they do not.

    Args:
        config: of the run, locked.
        batch_size: examples in a batch over all devices; 0: the run's.
        devices: to evaluate on; None: all devices of all processes.
        example: of the run's data set; None: as the data set says, which may need its files.
        note: called with a text that says what differs from the run.

    Raises:
        InputError: these devices cannot divide `batch_size`, or the config cannot work.
    """
    run_config.check(config, evaluating=True)
    mesh = sharding.make_mesh({"data": -1}, devices=devices)
    config = config.copy_and_resolve_references().unlock()
    wanted = batch_size or config.eval_batch_size or config.batch_size
    config.eval_batch_size = wanted if batch_size else -(-wanted // mesh.size) * mesh.size
    # A fixed order of sums may not fit these devices, and last bits are no reason to fail.
    try:
        batching.check_eval_batch(config, mesh)
    except errors.InputError as error:
        if not config.deterministic_shards:
            raise
        note(f"last bits may differ from the run's: {error}")
        config.deterministic_shards = 0
        batching.check_eval_batch(config, mesh)
    config = run_config.settled(config.lock(), mesh.devices.flat[0].platform)
    return _described(config, mesh, example)


def with_data(ready: Setup) -> Setup:
    """Opens the data if they are not open, and measures their variance if the config asks for it.

    Raises:
        InputError: the files are missing or damaged, or too few examples are left to train on.
    """
    if ready.splits is not None:
        return ready
    splits = datasets.load(reads.View(ready.given, ready.seen))
    given = _with_share(ready.given, len(splits.heldout), ready.seen)
    config = _with_count(variance.measured(given, splits.train), len(splits.train))
    return ready._replace(config=config, given=given, splits=splits)


def cautions(ready: Setup) -> list[str]:
    """Returns warnings about settings that work but may surprise; the data may be open or not."""
    config = ready.config
    variant = registry.load("models", config.model.name, field="model.name")
    opened = ready.splits is not None
    return [
        *(variant.cautions(config) if hasattr(variant, "cautions") else []),
        *own_cautions.of_schedules(config),
        *own_cautions.of_images(config, ready.example, ready.abstract),
        *own_cautions.of_fields(ready.asked, ready.seen, opened=opened),
    ]


def _with_share(config: Any, num_heldout: int, seen: set[str]) -> Any:
    """Returns the config with the number of held-out examples, if the data set left it open."""
    if config.data.heldout_examples or "data.heldout_examples" not in seen:
        return config
    config = config.copy_and_resolve_references()
    config.data.heldout_examples = num_heldout
    return config


def _with_count(config: Any, num_train: int) -> Any:
    """Returns the config with the number of training examples, if a model asks for it by a 0."""
    if config.model.get("num_examples", 1):
        return config
    config = config.copy_and_resolve_references()
    config.model.num_examples = num_train
    return config


def _described(given: Any, mesh: Mesh, example: Any = None) -> Setup:
    """Returns the setup without data; 1 replaces a variance that is still to be measured."""
    config = given
    if not config.data.variance:
        config = config.copy_and_resolve_references().unlock()
        config.data.variance = 1.0
        config.lock()
    seen: set[str] = set()
    view = reads.View(config, seen)
    if example is None:
        example = datasets.example_spec(view)
        size, sides = config.data.image_size, datasets.shown_pixels(example).shape[:2]
        if isinstance(size, tuple) and "data.image_size" not in seen:
            raise errors.InputError(
                f"config.data.image_size={size}: the images of data.name={config.data.name!r} have "
                f"their own size, {'×'.join(map(str, sides))}: leave it out"
            )
    abstract = step.abstract_state(view, example)
    return Setup(config, given, mesh, example, abstract, (), None, given, seen)
