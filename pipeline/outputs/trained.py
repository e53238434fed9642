"""A trained model for use in Python: arrays in, NumPy arrays out, on the devices of this process.

`pipeline.load` makes one from the run's config, the shapes of an example and one checkpoint; it
reads no data. Every value is checked first: a mistake is a ValueError of one line. Chunks have a
fixed size (`row_chunks`), so a result does not depend on the number of examples.
"""

import os
import warnings
from typing import Any

import jax
import numpy as np

from pipeline import datasets, models
from pipeline.outputs import (
    given_arrays,
    given_labels,
    model_functions,
    samples,
    saved_settings,
    saved_state,
)
from pipeline.runtime import backends, errors, flags
from pipeline.training import example_file, setup

MAX_NUM = 2**31 - 1  # samples of one call


def load(run: Any, *, step: str | int = "best") -> "TrainedModel":
    """Returns the trained model of a run; see `pipeline.load`.

    Raises:
        InputError: there is no run, or no such checkpoint, or it cannot be read.
    """
    if not isinstance(run, str | os.PathLike):
        raise errors.InputError(f"{given_arrays.shown(run)} is no run: give the path of its folder")
    workdir = flags.run(os.fspath(run))
    config = saved_settings.load(workdir)
    example = example_file.of_run(config, workdir, saved_first=True)
    own = [one for one in backends.devices() if one.process_index == jax.process_index()]
    ready = setup.prepare_evaluation(config, devices=own, example=example)
    at, state = saved_state.restore(workdir, str(step), ready, warn=warnings.warn)
    return TrainedModel(workdir, config, ready, (at, model_functions.params_of(state)))


class TrainedModel:
    """A run's model at one checkpoint.

    `labels` are for models with `config.model.conditions`. For one condition they are whole numbers
    or names of classes: one for each example, or a single one for all. For several conditions they
    are a dictionary by name. Without labels the model uses its null class.
    """

    def __init__(self, run: Any, config: Any, ready: setup.Setup, found: tuple[int, Any]):
        """Holds the step and the parameters `found` on the devices of `ready`; see `load`."""
        self.config = config  # of the run, locked
        self.step, self.params = found  # {"params": …, "stats": …}: trees of JAX arrays
        self.example = ready.example  # one abstract example of the data set
        self.functions = model_functions.make(ready.config, ready.example)
        self._run, self._abstract = run, models.abstract(ready.config, ready.example)
        self._programs = model_functions.Programs(ready, self.params)

    def encode(self, images: Any, labels: Any = None) -> Any:
        """Returns what the model says of images: a Gaussian's moments, or codes.

        Args:
            images: [N, H, W, C]: uint8 of 0 … 255, floats in [0, 1], or whole numbers in the
                dtype and range of the data set. They are rounded if the run's data were
                (`config.data.binarize`).
            labels: see the class.

        Returns:
            Mean and log-variance of q(z|x), float32 [N, D] each, in units of the prior's standard
            deviation; or of a VQ-VAE the codes, int32 [N, h, w], with Q a vector [N, h, w, Q].

        Raises:
            ValueError: the images or labels are not as described, or the model encodes no images.

        >>> import numpy as np
        >>> mean, log_variance = model.encode(np.zeros((5, *model.image_shape), np.uint8))
        >>> mean.shape == log_variance.shape == (5, model.config.model.latent_dim)
        True
        """
        return self._of_images("encode", images, labels)

    def decode(self, z: Any, labels: Any = None) -> np.ndarray:
        """Returns the expected images of latents or codes, float32 [N, H, W, C] in [0, 1].

        Args:
            z: latents, [N, D] floats, those of a grid [h, w, D'] place after place; of a VQ-VAE
                codes, whole numbers [N, h, w] or [N, h, w, Q].
            labels: see the class.

        Raises:
            ValueError: z or the labels are not as described.

        >>> images = model.decode(np.zeros((2, model.config.model.latent_dim)))
        >>> images.shape == (2, *model.image_shape), images.dtype
        (True, dtype('float32'))
        """
        model_functions.check_has(self.functions, "decode", self.config)
        quantizer, codes = getattr(self._abstract, "quantizer", None), self.example.get("codes")
        if codes is not None:
            z = given_arrays.codes(z, codes.shape, codes.num_codes)
        elif quantizer is not None:
            shape = (*self._abstract.grid, *quantizer.shape)
            z = given_arrays.codes(z, shape, quantizer.num_codes)
        else:
            z = given_arrays.latents(z, getattr(self._abstract, "latent_dim", None))
        return self._computed("decode", z, labels)

    def reconstruct(self, images: Any, labels: Any = None) -> np.ndarray:
        """Returns images decoded from their mean or codes, float32 [N, H, W, C] in [0, 1].

        Args:
            images: [N, H, W, C], as in `encode`.
            labels: see the class.

        Raises:
            ValueError: the images or labels are not as described.

        >>> images = np.random.default_rng(0).uniform(size=(3, *model.image_shape))
        >>> bool(np.mean((model.reconstruct(images) - images) ** 2) < 1)
        True
        """
        return self._of_images("reconstruct", images, labels)

    def sample(
        self,
        num: int,
        seed: int = 0,
        labels: Any = None,
        *,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float | None = None,
    ) -> np.ndarray:
        """Returns images drawn from the model, float32 [N, H, W, C] in [0, 1].

        The first images of a seed are the same for any `num`, and those of `generate`. A VQ-VAE
        decodes random codes, which look like noise: it needs a prior over its codes.

        Args:
            num: N, the number of images.
            seed: of the draws, 0 to 2³² − 1.
            labels: see the class: N of them, or a single one for all.
            temperature: this and the others replace the fields of `config.model.sampling`, which
                only a prior over codes has; None leaves a field as it is.
            top_k: see there.
            top_p: see there.
            guidance: see there.

        Raises:
            ValueError: a value is out of its range, or the model has no such labels or fields.

        >>> model.sample(4, seed=1).shape == (4, *model.image_shape)
        True
        >>> bool((model.sample(4, seed=1)[:2] == model.sample(2, seed=1)).all())
        True
        """
        model_functions.check_has(self.functions, "sample", self.config)
        num = given_arrays.integer(num, "num", 1, MAX_NUM)
        seed = given_arrays.integer(seed, "seed", 0, 2**32 - 1)
        keys = jax.device_get(jax.random.key_data(samples.keys(seed, num)))
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "guidance": guidance}
        return self._computed("sample", keys, labels, options)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of an image, (H, W, C)."""
        return self.pixels.shape

    @property
    def pixels(self) -> datasets.Pixels:
        """Dtype and range of the data set's images; its method `unit` scales them to [0, 1]."""
        return datasets.shown_pixels(self.example)

    def __repr__(self) -> str:
        """Returns which model this is."""
        num = sum(leaf.size for leaf in jax.tree.leaves(self.params["params"]))
        shape = "×".join(map(str, self.image_shape))
        return (
            f"<TrainedModel {self.config.model.name} of {self.config.data.name}, {shape}, "
            f"{num:,} parameters, step {self.step} of {self._run}>"
        )

    def _of_images(self, name: str, images: Any, labels: Any) -> Any:
        model_functions.check_has(self.functions, name, self.config)
        rows = given_arrays.images(images, self.pixels, binarize=self.config.data.binarize)
        return self._computed(name, rows, labels)

    def _computed(self, name: str, rows: Any, labels: Any, options: Any = None) -> Any:
        """Returns the results of the function `name` for all rows."""
        conditions = {one: self.example[one] for one in self.config.model.get("conditions", ())}
        entries = given_labels.entries(labels, conditions, len(rows))
        return self._programs(name, (rows, entries), options or {})
