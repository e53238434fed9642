"""The VQ-VAEs with the quantiser of lucidrains' vector-quantize-pytorch in PyTorch's network."""

from collections.abc import Sequence
from importlib import metadata
from typing import Any

from pipeline.performance.frameworks import Run, Unsuited
from pipeline.performance.frameworks.works import Work


def start(work: Work, options: Sequence[str]) -> Run:
    """Returns the run; options as of `pytorch`.

    Raises:
        Unsuited: the work has no quantiser.
    """
    if work.config.model.name != "vq_vae":
        raise Unsuited("vector-quantize-pytorch is for VQ-VAEs")
    import torch
    from vector_quantize_pytorch import VectorQuantize

    from pipeline.performance.frameworks import pytorch, pytorch_models

    class Quantizer(torch.nn.Module):
        """Its quantiser, as `pytorch_models.VQVAE` calls one."""

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
