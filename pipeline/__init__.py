"""Distributed training of variational autoencoders in JAX.

`load` is the one function for use in Python: it opens a trained model. This module imports no JAX
until `load` is called.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.outputs.trained import TrainedModel

__version__ = "0.3.0"


def load(run: Any, *, step: str | int = "best") -> "TrainedModel":
    """Returns the trained model of a run, on the devices of this process; needs no data set.

    Args:
        run: the run's folder, or gs://bucket/name.
        step: the checkpoint: "best", "latest", or the number of a step.

    Raises:
        ValueError: there is no run, or no such checkpoint, or it cannot be read.
    """
    from pipeline.outputs import trained

    return trained.load(run, step=step)
