"""The abstract entry `codes`: what an example's codes are, and the model that decodes them."""

import dataclasses
import json
from typing import Any

import numpy as np

from pipeline.datasets import _pixels


@dataclasses.dataclass(frozen=True)
class Codes:
    """Codes of a VQ-VAE, whole numbers from 0 to `num_codes` − 1."""

    shape: tuple[int, ...]  # [h, w] or, with Q codes at each site, [h, w, Q]
    dtype: Any
    num_codes: int  # K
    decoder: str  # JSON: the flat config of the model that decodes, and its example's image
    # Width of one value of a pixel in the likelihood of `distortion`, None if there is none.
    bin_width: float | None = None

    def __post_init__(self) -> None:
        """Lets an entry be compared with one that was read from JSON."""
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "dtype", np.dtype(self.dtype))

    @property
    def config(self) -> dict[str, Any]:
        """The flat config of the model that decodes."""
        return json.loads(self.decoder)["config"]

    @property
    def image(self) -> _pixels.Pixels:
        """The images that the codes become."""
        return _pixels.Pixels(**json.loads(self.decoder)["image"])
