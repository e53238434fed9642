"""Images of given latents, decoded in one batch.

The decision: they end as NumPy arrays, alike on every process, as encodings do.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from pipeline import data, evaluation_step, step


def make(config: Any) -> Callable[[step.TrainState, np.ndarray, Mapping[str, Any]], np.ndarray]:
    """Returns the function (state, latents [N, D], rows) → images [N, H, W, C] in [0, 1].

    The model must have `decode(z)` or, where `model.conditions` names some,
    `decode(z, conditions)`, which is given those of `rows`, entries [N, ...] of a batch.
    """
    decode = evaluation_step.make_method(config, data.example_spec(config), "decode")
    names = tuple(config.model.get("conditions", ()))

    def images(state: step.TrainState, z: np.ndarray, rows: Mapping[str, Any]) -> np.ndarray:
        conditions = ({name: rows[name] for name in names},) if names else ()
        return np.asarray(jax.device_get(decode(state, np.asarray(z, np.float32), *conditions)))

    return images
