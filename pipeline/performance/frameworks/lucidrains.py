"""The VQ-VAEs in PyTorch, with the quantiser of lucidrains' vector-quantize-pytorch."""

from collections.abc import Sequence
from importlib import metadata
from typing import Any

from pipeline.performance.frameworks import Run, Unsuited
from pipeline.performance.frameworks.works import Work


def start(work: Work, options: Sequence[str]) -> Run:
    """Returns the run; `options` are those of `pytorch`.

    Raises:
        Unsuited: the work is not a VQ-VAE.
    """
    if work.config.model.name != "vq_vae":
        raise Unsuited("vector-quantize-pytorch is for VQ-VAEs")
    # Imported here, so that `compare` can skip this file when they are not installed.
    import torch
    from vector_quantize_pytorch import VectorQuantize

    from pipeline.performance.frameworks import pytorch, pytorch_models

    class Quantizer(torch.nn.Module):
        """The library's quantiser, in the form that `pytorch_models.VQVAE` calls."""

        def __init__(self, config: Any):
            super().__init__()
            section = config.model.quantizer
            self.layer = VectorQuantize(
                dim=config.model.latent_dim,
                codebook_size=section.num_codes,
                decay=section.decay,
                eps=section.epsilon,
                commitment_weight=1.0,
                accept_image_fmap=True,
            )

        def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            values, _, commitment = self.layer(z)
            return values, commitment

    model = pytorch_models.VQVAE(work, Quantizer(work.config))
    run = pytorch.train(work, model, options)
    return run._replace(version=metadata.version("vector-quantize-pytorch"))
