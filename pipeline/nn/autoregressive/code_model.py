"""All of a prior over codes but its objective: it scores codes, draws them, and decodes them.

The codes of an image are a sequence in raster order, the Q codes of a site in turn. The decoder is
a VQ-VAE's; it lies frozen in the state, so a run needs the VQ-VAE's files only at its first start.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline import datasets
from pipeline.datasets import codes as code_files
from pipeline.nn import frozen, metrics, weights
from pipeline.nn.autoregressive import (
    code_heads,
    code_sampling,
    dropout,
    pixel_cnn,
    prefix,
    transformer,
)
from pipeline.runtime import errors, registry

NETWORKS = {"transformer": transformer.Transformer, "pixel_cnn": pixel_cnn.PixelCNN}
TRAINING = "training"  # the batch entry that says that features are dropped
Batch = dict[str, Array]


class CodeModel(nnx.Module):
    """An autoregressive distribution over the codes of an image."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Builds the networks for the codes of one example, and the decoder.

        Args:
            config: the whole config; reads `model` and `compute_dtype`.
            example: abstract example with `codes`, a `datasets.Codes`.
            rngs: the stream `params`.

        Raises:
            InputError: the data have no codes, or a value of `config.model` cannot work.
        """
        section, self.codes = config.model, _codes(config, example)
        shape, num_codes = self.codes.shape, self.codes.num_codes
        self.num_places, depth = math.prod(shape), math.prod(shape[2:])
        options: dict[str, Any] = {"dtype": config.compute_dtype, "rngs": rngs}
        network = registry.choose(NETWORKS, section.network, field="model.network")
        self.prefix = prefix.Prefix(section, example, rngs=rngs)
        self.embedding = code_heads.Embedding(num_codes, section.width, depth=depth, rngs=rngs)
        self.network = network(section, shape, **options)
        self.head = code_heads.Head(num_codes, section.width, **options)
        self.dropout = section.dropout
        names = code_heads.Sampling._fields
        self.sampling = code_heads.Sampling(*(section.sampling[name] for name in names))
        self.decoder = frozen.part(self.codes.config, {"image": self.codes.image}, frozen.DECODING)

    def augment(self, batch: Batch, *, keys: Array) -> Batch:
        """Drops conditions of some examples, and lets `scores` drop features. For training only."""
        batch = self.prefix.drop(batch, keys=keys)
        return batch | {TRAINING: jnp.ones_like(batch["mask"])}

    def scores(self, batch: Batch, *, keys: Array) -> code_heads.Scores:
        """Returns −log p of each code and whether it was the most probable one, [B, T] each."""
        codes = batch["codes"].reshape(batch["codes"].shape[0], -1)
        drop = dropout.make(self.dropout, keys) if TRAINING in batch else dropout.none
        return self.head(self.features(codes, batch, drop=drop), codes)

    def features(
        self, codes: Array, conditions: prefix.Conditions, *, drop: dropout.Drop = dropout.none
    ) -> Array:
        """Returns what predicts each code, [B, T, width], for codes [B, T] int32."""
        first = self.prefix(conditions, num=codes.shape[0])
        return self.network(self.embedding(codes), first, drop)

    def bound(self, *, distortion: Array, rate: Array) -> metrics.Metrics:
        """Returns the parts of the bound on log p(image), see `metrics.rate_distortion`."""
        num_dims, bin_width = math.prod(self.codes.image.shape), self.codes.bin_width
        return metrics.rate_distortion(
            distortion=distortion, rate=rate, num_dims=num_dims, bin_width=bin_width
        )

    def sample(self, keys: Array, conditions: prefix.Conditions = None) -> Array:
        """Returns one image for each key, [B, H, W, C] in [0, 1]."""
        return self.decode(self.sample_codes(keys, conditions))

    def sample_codes(
        self,
        keys: Array,
        conditions: prefix.Conditions = None,
        *,
        draw: Callable[..., Array] | None = None,
    ) -> Array:
        """Returns codes for each key, [B, h, w] int32 ([B, h, w, Q] with Q codes a site).

        Conditions of None are the null class. `model.sampling` says how codes are drawn.

        Args:
            keys: of the images, [B].
            conditions: [B, ...] by name, or None.
            draw: a function of `code_sampling`; None: `cached` if the network has a cache.
        """
        if draw is None:
            has_cache = hasattr(self.network, "cache")
            draw = code_sampling.cached if has_cache else code_sampling.recomputed
        codes = draw(
            *(self.network, self.embedding, self.head),
            starts=self.prefix.starts(keys, conditions, guidance=self.sampling.guidance),
            keys=keys,
            num=self.num_places,
            sampling=self.sampling,
        )
        return codes.reshape(-1, *self.codes.shape)

    def decode(self, codes: Array, conditions: prefix.Conditions = None) -> Array:
        """Returns the VQ-VAE's images, [B, H, W, C] in [0, 1], for codes [B, h, w(, Q)].

        Only the choice of codes depends on conditions.
        """
        del conditions
        return self.decoder.decode(codes)


def first_stats(config: Any, example: Any, stats: Any) -> Any:
    """Returns the state of step 0 beside the parameters: the arrays of the VQ-VAE's decoder.

    Args:
        config: of the run; `data.path` is the folder of the codes.
        example: abstract example of these codes.
        stats: a tree of this form.

    Raises:
        InputError: the file of the decoder is missing, damaged, or another model's.
    """
    del example
    path = code_files.decoder_file(config.data)
    arrays = frozen.arrays(weights.read(path)[0], "decoder")
    return weights.like(stats, arrays, source=path)


def _codes(config: Any, example: Any) -> datasets.Codes:
    codes = example.get("codes")
    if isinstance(codes, datasets.Codes):
        return codes
    raise errors.InputError(
        f"config.data.name={config.data.name!r} has no codes, on which model.name='code_prior' "
        "trains: write them with `python -m pipeline.generate --codes=all --workdir=RUN`, of a run "
        "of vq_vae; then --config.data.name=codes --config.data.path=RUN/reports/STEP"
    )
