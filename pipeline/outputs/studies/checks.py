"""A study's runs, checked against the devices, the data and their folders before any starts."""

from pipeline import evals
from pipeline.outputs.studies import declared
from pipeline.runtime import errors, run_config
from pipeline.training import setup


def check(study: declared.Study, index: int = 0, of: int = 1) -> None:
    """Checks all configs, and the folders of the runs that this part of the study trains.

    The first run of each method also opens its data, for the evaluations.

    Raises:
        InputError: a config cannot run here, an evaluation does not apply to it, or a folder holds
            another run; the line names the run. Nothing was compiled or written.
    """
    seen, own_groups = set(), study.share(index, of)
    for group in study.groups:
        own, run = group in own_groups, study.training(group)
        try:
            ready = setup.prepare(run.config, workdir=run.workdir if own else None, open_data=False)
            if own:
                run_config.check_against_run(ready.given, run.workdir)
                _check_length(run)
            if run.method not in seen:
                opened = setup.with_data(ready)
                asked = ",".join(study.evals)
                evals.choose(asked, opened.config, opened.mesh, opened.opened.heldout)
        except errors.InputError as error:
            raise errors.InputError(f"{run.name}: {error}") from None
        seen.add(run.method)


def _check_length(run: declared.Planned) -> None:
    """Raises an InputError if somebody has prolonged the run."""
    done, total = run.steps_done, run.config.total_steps
    if done > total:
        raise errors.InputError(
            f"the run is at step {done}, and config.total_steps={total}: "
            "raise that for all runs by study.overrides, or move this one away"
        )
