"""The replicas of a run as runs by themselves: evaluated, logged and saved each in its own folder.

While they train in one program, their state lies in the checkpoints of the run's folder, and the
events of the seed k in `seed<k>/tensorboard`. When all steps are done, `split` makes a whole run
of each `seed<k>`, which every command takes. Without replicas the run's folder is that run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pipeline.display import terminal, texts
from pipeline.mesh import agreement
from pipeline.runtime import errors, run_config
from pipeline.runtime.workdir import contents, saved_config
from pipeline.training import evaluation, example_file, fingerprint, replicas, setup
from pipeline.training.logged import writers
from pipeline.training.saving import checkpoint, checkpoint_folder
from pipeline.training.step import TrainState


def folders(config: Any, workdir: Path) -> list[Path]:
    """Returns the folder of each replica's run."""
    if config.replicas == 1:
        return [workdir]
    return [workdir / f"seed{seed}" for seed in replicas.seeds(config)]


def of(config: Any, workdir: Path) -> list[tuple[Path, Any]]:
    """Returns the folder and the config of each replica's run."""
    return list(zip(folders(config, workdir), replicas.alone(config), strict=True))


class Evaluations:
    """The evaluations of each replica, which are those of a run by itself."""

    def __init__(self, ready: setup.Setup):
        """Makes the evaluations; raises what `evaluation.Evaluations` does."""
        configs = replicas.alone(ready.config)
        self._each = [evaluation.Evaluations(ready._replace(config=own)) for own in configs]
        self._seeds = replicas.seeds(ready.config)

    def __call__(
        self,
        state: TrainState,
        writer: writers.Writers,
        at: int,
        *,
        warn: Callable[[str], None],
    ) -> dict[str, float]:
        """Evaluates as `evaluation.Evaluations` does.

        Of several replicas, it returns the means, and each one's figures as "seed3/elbo".
        """
        if len(self._each) == 1:
            return self._each[0](state, writer.each[0], at, warn=warn)
        found: dict[str, dict[str, float]] = {}
        for index, (evaluate, own) in enumerate(zip(self._each, writer.each, strict=True)):
            name = f"seed{self._seeds[index]}"
            said = lambda text, name=name: warn(f"{name}: {text}")  # noqa: E731
            try:
                found[name] = evaluate(replicas.one(state, index), own, at, warn=said)
            except evaluation.NotFinite as error:
                raise evaluation.NotFinite(f"{name}: {error}") from error
        figures = next(iter(found.values()))
        means = {name: float(np.mean([one[name] for one in found.values()])) for name in figures}
        own_figures = {f"{seed}/{n}": value for seed in found for n, value in found[seed].items()}
        return means | own_figures


def show(screen: terminal.Terminal, config: Any, title: str, figures: dict[str, float]) -> None:
    """Shows held-out figures from `Evaluations`: of several replicas, a column for each."""
    if config.replicas == 1:
        screen.figures(title, figures)
        return
    seeds = [f"seed{seed}" for seed in replicas.seeds(config)]
    names = [name for name in figures if not name.startswith(tuple(f"{seed}/" for seed in seeds))]
    rows = [
        [name, *(texts.number(figures[f"{seed}/{name}"]) for seed in seeds),
         texts.number(figures[name])]
        for name in texts.ordered(names)
    ]  # fmt: skip
    screen.columns(title, [["", *seeds, "mean"], *rows])


def claim(config: Any, workdir: Path) -> None:
    """Takes the replicas' runs back, so that all can go on in one program.

    They are split again when that run is complete. All processes must call this.

    Raises:
        InputError: one of them went on by itself; nothing was changed.
    """
    if config.replicas == 1:
        return
    newest, own = (contents.committed(workdir) or [0])[-1], folders(config, workdir)
    for folder in own:
        if (further := (contents.committed(folder) or [0])[-1]) > newest:
            raise errors.InputError(
                f"{folder} went on by itself, to step {further}: go on there, or move it away to "
                f"train all seeds from step {newest} on"
            )
    agreement.wait_patiently("seeds", seconds=60.0)
    for folder in own if jax.process_index() == 0 else ():
        for name in (saved_config.NAME, saved_config.COPY):  # so that no other run begins there
            (folder / name).unlink(missing_ok=True)


def split(ready: setup.Setup, workdir: Path, state: TrainState, prints: dict[str, str]) -> None:
    """Makes a run of each replica, with the state as its checkpoint.

    A folder that is a run already stays as it is. All processes must call this, after the
    checkpoint of `state` is committed. Without replicas it does nothing.

    Args:
        ready: the run, with open data.
        workdir: of the run.
        state: of all replicas.
        prints: the fingerprint of the data.
    """
    if ready.given.replicas == 1:
        return
    at = int(state.step)
    figures, _ = checkpoint_folder.figures(workdir / "checkpoints" / str(at))
    for index, (folder, config) in enumerate(of(ready.given, workdir)):
        if saved_config.exists(folder):
            continue
        prefix = f"{folder.name}/"
        own = {n.removeprefix(prefix): v for n, v in figures.items() if n.startswith(prefix)}
        checkpoints = checkpoint.Checkpoints(folder / "checkpoints", config.checkpoint)
        checkpoints.save(at, replicas.one(state, index), own or None)
        checkpoints.wait()
        checkpoints.close()
        if jax.process_index() == 0:
            contents.note_saved(folder, at)
            example_file.write(ready.example, folder)
            fingerprint.save(prints, folder, warn=errors.say)
            # Last, because a folder with a config counts as a whole run.
            run_config.save(config, folder)
