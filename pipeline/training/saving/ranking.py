"""Which checkpoint is the best, and which ones stay.

A figure that is not finite is never the best. A checkpoint counts among the newest only if this
process wrote or restored it: otherwise damaged ones could displace the last one that is whole.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.display import figures
from pipeline.runtime import errors

MODES = {"higher": "max", "lower": "min"}


class Known(NamedTuple):
    """What is known of the checkpoints of a run; each is a collection of steps."""

    scores: Mapping[int, float]  # the best metric of the evaluated steps
    whole: Collection[int]  # written or restored by this process
    fixed: Collection[int]  # kept in any case


def mode(section: Any) -> str:
    """Returns whether the best metric should be "max" or "min".

    Args:
        section: of the config, `checkpoint`.

    Raises:
        InputError: it is "auto", and the table of figures does not say it of this metric.
    """
    if section.best_mode != "auto":
        return section.best_mode
    figure = figures.of(section.best_metric)
    direction = figure.direction or figure.within_run
    if direction not in MODES:
        raise errors.InputError(
            f"config.checkpoint.best_mode='auto' does not know which values of "
            f"best_metric={section.best_metric!r} are better: choose max or min"
        )
    return MODES[direction]


def by_score(section: Any, scores: Mapping[int, float]) -> list[int]:
    """Returns the steps with a finite score, the best first; of equal ones, the newest first."""
    sign = 1 if mode(section) == "max" else -1
    finite = [step for step, score in scores.items() if math.isfinite(score)]
    return sorted(finite, key=lambda step: (sign * scores[step], step), reverse=True)


def kept(section: Any, steps: Sequence[int], known: Known) -> set[int]:
    """Returns the steps that stay.

    Args:
        section: of the config, `checkpoint`.
        steps: of all checkpoints, ascending.
        known: about these checkpoints.
    """
    num = section.keep_newest
    newest = [step for step in steps if step in known.whole][-num:]
    stay = {*newest, *known.fixed}
    if len(newest) < num:
        # Nobody has read these since the start, and they stay until enough whole ones exist.
        stay |= set([step for step in steps if step not in known.whole][-num:])
    if section.keep_every_steps:
        stay |= {step for step in steps if step % section.keep_every_steps == 0}
    if section.keep_best:
        stay |= set(by_score(section, known.scores)[: section.keep_best])
    return stay & set(steps)
