"""Posteriors of many examples, and images of given latents, computed on the mesh.

The results are NumPy arrays, the same on every process. Their readers (statistics, scikit-learn's
estimators, pictures) work on whole data sets and not on batches.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from pipeline import datasets
from pipeline.training import evaluation, step


class Encodings(NamedTuple):
    """The posteriors of N examples, and the attributes that the data set has for them."""

    mean: np.ndarray  # [N, D] float32
    log_variance: np.ndarray  # [N, D] float32
    attributes: dict[str, np.ndarray]  # "label", "factors", …: [N, ...]; never the image

    @property
    def kl(self) -> np.ndarray:
        """KL(q(z_d|x) ‖ N(0, 1)) of each latent, [N, D] float32, nats."""
        return 0.5 * (np.square(self.mean) + np.exp(self.log_variance) - 1.0 - self.log_variance)


def encoder(config: Any, mesh: Mesh) -> Callable[[step.TrainState, Iterable[dict]], Encodings]:
    """Returns the function (state, global batches) → Encodings of their true examples, in order.

    Batches are cut over the mesh, with padding masked, as `batching.heldout_batches` makes them.
    The model must have a Gaussian posterior (`Model.posterior`).
    """
    posterior = evaluation.make_method(config, datasets.example_spec(config), "posterior")

    def encode(state: step.TrainState, batches: Iterable[dict[str, jax.Array]]) -> Encodings:
        chunks: dict[str, list[np.ndarray]] = {}
        for batch in batches:
            mean, log_variance = posterior(state, batch)
            rows = {name: value for name, value in batch.items() if name != "image"}
            rows |= {"mean": mean, "log_variance": log_variance}
            rows = multihost_utils.process_allgather(rows, tiled=True)
            true = rows.pop("mask") > 0
            for name, value in rows.items():
                chunks.setdefault(name, []).append(np.asarray(value)[true])
        joined = {name: np.concatenate(parts) for name, parts in chunks.items()}
        return Encodings(joined.pop("mean"), joined.pop("log_variance"), joined)

    return encode


def decoder(config: Any) -> Callable[[step.TrainState, np.ndarray, Mapping[str, Any]], np.ndarray]:
    """Returns the function (state, latents [N, D], rows) → images [N, H, W, C] in [0, 1].

    The model must have `decode(z)`. If `model.conditions` names entries of a batch, it must have
    `decode(z, conditions)` instead, and gets those entries of `rows`, each [N, ...].
    """
    decode = evaluation.make_method(config, datasets.example_spec(config), "decode")
    names = tuple(config.model.get("conditions", ()))

    def images(state: step.TrainState, z: np.ndarray, rows: Mapping[str, Any]) -> np.ndarray:
        conditions = ({name: rows[name] for name in names},) if names else ()
        return np.asarray(jax.device_get(decode(state, np.asarray(z, np.float32), *conditions)))

    return images
