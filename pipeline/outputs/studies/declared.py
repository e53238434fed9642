"""What a study declares, and its runs: every method with every seed.

A file of a study defines `get_study()`, or `get_study(presets)`, which returns a ConfigDict with
the fields of `fields.FIELDS`. Nothing here imports JAX: a run needs the devices for itself.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.outputs.studies import fields
from pipeline.runtime import command_line, config_file, errors, run_config
from pipeline.runtime.workdir import contents


class Planned(NamedTuple):
    """One run of a study."""

    method: str
    seed: int
    workdir: Path
    arguments: tuple[str, ...]  # of `pipeline.train`, without --workdir
    config: Any  # locked

    @property
    def name(self) -> str:
        """The method and the seed, such as beta_vae/seed0."""
        return f"{self.method}/seed{self.seed}"

    @property
    def steps_done(self) -> int:
        """The step of its newest checkpoint, 0 before the first."""
        marked = self.config.checkpoint.atomicity == "commit_file"
        return max(contents.committed(self.workdir, marked=marked) or [0])

    @property
    def is_trained(self) -> bool:
        """Whether it has reached its last step."""
        return self.steps_done >= self.config.total_steps

    @property
    def report(self) -> Path:
        """The folder of the report on its newest checkpoint."""
        return self.workdir / "reports" / str(self.steps_done)


class Study(NamedTuple):
    """A study: its runs in their order, and what is compared.

    With `replicas`, so many runs that follow each other train in one program, as a run in the
    folder above theirs, which makes them when it is complete.
    """

    title: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    evals: tuple[str, ...]
    metrics: tuple[str, ...]  # figures of the evaluations
    runs: tuple[Planned, ...]  # seed by seed, so that methods always have about as many runs
    replicas: int = 1

    @property
    def groups(self) -> list[tuple[Planned, ...]]:
        """The runs that train together; each by itself without replicas."""
        starts = range(0, len(self.runs), self.replicas)
        return [self.runs[start : start + self.replicas] for start in starts]

    def share(self, index: int, of: int) -> list[tuple[Planned, ...]]:
        """Returns the groups of part `index` of `of`: those with number k ≡ index modulo `of`."""
        return self.groups[index::of]

    def training(self, group: Sequence[Planned]) -> Planned:
        """Returns the run that trains a group: its only one, or that of all its replicas."""
        first = group[0]
        if self.replicas == 1:
            return first
        flat = run_config.flatten(first.config) | {"replicas": self.replicas}
        return first._replace(
            workdir=first.workdir.parent,
            arguments=(*first.arguments, f"--config.replicas={self.replicas}"),
            config=run_config.nested(flat).lock(),
        )

    def command(self, method: str) -> str:
        """Returns the arguments of `pipeline.train` that all seeds of a method share, as a line."""
        first = next(run for run in self.runs if run.method == method)
        return shlex.join(text for text in first.arguments if not text.startswith(fields.SEED))

    def is_evaluated(self, run: Planned) -> bool:
        """Says whether the newest checkpoint of a run has a report with the study's evaluations."""
        try:
            found = json.loads((run.report / "metrics.json").read_bytes())
            return set(self.evals) <= {*found["evaluations"], *found["left_out"]}
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            return False


def read(given: str, workdir: Path, overrides: Sequence[str] = (), *, replicas: int = 1) -> Study:
    """Returns the study that FILE or FILE:PRESETS declares; every run's config is built.

    Args:
        given: what --config names.
        workdir: of the study; a run lies in <workdir>/<method>/seed<k>.
        overrides: further arguments --config.FIELD=VALUE of every run.
        replicas: how many seeds train in one program. They see the data of the first of them. If
            there are more seeds, such a group has a folder of its own between method and seed.

    Raises:
        InputError: something in the file, or a run's config, cannot work.
    """
    declared = config_file.made(given, by="get_study", like=fields.EXAMPLE)
    fields.check(given, declared)
    methods, seeds = dict(declared.methods.items()), tuple(declared.seeds)
    shared = (*declared.overrides, *overrides)
    fields.check_overrides("study.overrides", shared)
    fields.check_replicas(replicas, seeds)
    runs = []
    for start in range(0, len(seeds), replicas):
        group = seeds[start : start + replicas]
        together = replicas > 1 and len(seeds) > replicas
        between = f"seeds{group[0]}-{group[-1]}" if together else ""
        data = (f"--config.data.seed={group[0]}",) if replicas > 1 else ()
        for method in methods:
            # A study may say itself which data all its runs see.
            arguments = (methods[method][0], *data, *methods[method][1:], *shared)
            folder = workdir / method / between
            runs += [_planned(method, seed, folder, arguments) for seed in group]
    _check_differ(runs)
    return Study(
        title=Path(given.partition(":")[0]).stem,
        methods=tuple(methods),
        seeds=seeds,
        evals=tuple(declared.evals),
        metrics=tuple(declared.metrics),
        runs=tuple(runs),
        replicas=replicas,
    )


def _planned(method: str, seed: int, folder: Path, arguments: tuple[str, ...]) -> Planned:
    """Returns a run in `folder` with its config built; an error names its method."""
    given, *overrides = *arguments, f"{fields.SEED}={seed}"
    try:
        config = config_file.load(given)
        config = command_line.overridden(config, overrides)
        run_config.check(config)
    except errors.InputError as error:
        raise errors.InputError(f"method {method}: {error}") from None
    own = folder / f"seed{seed}"
    return Planned(method, seed, own, (f"--config={given}", *overrides), config)


def _check_differ(runs: Sequence[Planned]) -> None:
    """Raises an InputError if two runs are the same."""
    seen: dict[str, Planned] = {}
    for run in runs:
        text = json.dumps(run_config.flatten(run.config), sort_keys=True)
        if text in seen:
            raise errors.InputError(
                f"study.methods: {seen[text].method} and {run.method} are the same: take one out"
            )
        seen[text] = run
