"""The β-VAE and the VQ-VAEs of pythae, with the work's network and the step of `pytorch`."""

import math
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from pipeline.performance.frameworks import Run, Unsuited
from pipeline.performance.frameworks.works import Work


def start(work: Work, options: Sequence[str]) -> Run:
    """Returns the run; `options` are those of `pytorch`.

    Raises:
        Unsuited: the work is a conditional VAE or a prior, which pythae does not have.
    """
    if work.conditional:
        missing = "causal transformer" if work.is_prior else "conditional VAE"
        raise Unsuited(f"pythae has no {missing}")
    # Imported here, so that `compare` can skip this file when they are not installed.
    import torch
    from pythae import models
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    from pipeline.performance.frameworks import pytorch, pytorch_models

    vq = work.config.model.name == "vq_vae"

    # pythae builds its losses around networks that derive from its own classes.
    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = pytorch_models.sequential(work.encoder)

        def forward(self, x: torch.Tensor) -> Any:
            if vq:
                return ModelOutput(embedding=self.layers(x - 0.5))
            mean, log_variance = self.layers(x).chunk(2, 1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = pytorch_models.sequential(work.decoder)

        def forward(self, z: torch.Tensor) -> Any:
            outputs = self.layers(z)
            return ModelOutput(reconstruction=outputs + 0.5 if vq else outputs.sigmoid())

    class Loss(torch.nn.Module):
        """pythae's model, in the form that `pytorch.train` calls."""

        def __init__(self) -> None:
            super().__init__()
            self.model = _model(work, models, Encoder(), Decoder())

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.model({"data": image.float() / 255}).loss

    run = pytorch.train(work, Loss(), options)
    return run._replace(version=metadata.version("pythae"))


def _model(work: Work, models: Any, encoder: Any, decoder: Any) -> Any:
    section = work.config.model
    height, width, channels = work.shape
    sizes = {"input_dim": (channels, height, width), "latent_dim": section.latent_dim}
    if section.name == "beta_vae":
        config = models.BetaVAEConfig(**sizes, reconstruction_loss="bce", beta=section.beta.end)
        return models.BetaVAE(config, encoder=encoder, decoder=decoder)
    quantizer = section.quantizer
    # Its loss is ours times a constant, sums over pixels for means, and Adam ignores such a factor.
    config = models.VQVAEConfig(
        **sizes,
        num_embeddings=quantizer.num_codes,
        use_ema=True,
        decay=quantizer.decay,
        commitment_loss_factor=quantizer.commitment * math.prod(work.shape),
    )
    return models.VQVAE(config, encoder=encoder, decoder=decoder)
