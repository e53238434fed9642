"""The seed of what a run draws from its data, which several seeds of a run may share."""

from typing import Any


def of(config: Any) -> int:
    """Returns `config.data.seed`, or `config.seed` if that is -1.

    It decides the held-out split, the order of examples, and which of them a codebook looks at.
    """
    return config.seed if config.data.seed < 0 else config.data.seed
