"""The two protocols of the metrics, and the names of their figures.

`locatello` is that of Locatello et al. 2019 (arXiv:1811.12359), as disentanglement_lib 1.5 runs it.
Its figures have the plain names. `quick` takes seconds, so that a training run can log it. It uses
held-out examples and quicker learners, and its figures have names of their own: `dci_quick_…` for
`dci_…`. So two protocols are never compared by mistake.
"""

from pipeline.runtime import errors

LOCATELLO, QUICK = "locatello", "quick"
AUTO = "auto"  # locatello in `pipeline.evaluate`, quick in training
NAMES = (AUTO, LOCATELLO, QUICK)
NUM_TRAIN, NUM_TEST = 10_000, 5_000  # of locatello: images for learners, and votes of groups
MOST_MINUTES = 5  # on two cores, up to which `pipeline.evaluate` takes locatello by itself
# Seconds per latent and value of a factor, on two cores: boosted trees and vector machines.
SECONDS_PER_VALUE = 0.06


def figure(metric: str, field: str, protocol: str) -> str:
    """Returns a figure's name: "dci", "dci_disentanglement", "quick" → "dci_quick_disentanglement".

    Args:
        metric: the name of the metric's file, with which the names of its figures begin.
        field: of the file's `Scores`.
        protocol: `LOCATELLO` or `QUICK`.
    """
    return field if protocol == LOCATELLO else f"{metric}_quick{field.removeprefix(metric)}"


def minutes(num_latents: int, num_classes: tuple[int, ...]) -> float:
    """Returns about how long the learners of locatello take on two cores."""
    return SECONDS_PER_VALUE / 60 * num_latents * sum(num for num in num_classes if num > 1)


def check_size(num: int) -> None:
    """Raises an InputError if a data set has too few images to draw locatello's from."""
    if num < NUM_TRAIN + NUM_TEST:
        raise errors.InputError(
            f"config.disentanglement.protocol='locatello' draws {NUM_TRAIN + NUM_TEST} images, and "
            f"the data set has {num}: choose quick"
        )
