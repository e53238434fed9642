"""The works' models in PyTorch: `forward` returns the loss, and moves the EMA codebook.

PyTorch pads both sides of an image alike, but SAME puts an odd pixel after the image. So for 3×3
kernels of stride 2 this network is the mirror image of ours; for all others padding is the same.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.performance.frameworks import pytorch_prior
from pipeline.performance.frameworks.works import NUM_CLASSES, Layer, Work


class Residual(nn.Module):
    """x + layers(x)."""

    def __init__(self, layers: tuple[Layer, ...]):
        """Builds the layers."""
        super().__init__()
        # The first ReLU must not change x, which is added later; the others work in place.
        self.layers = nn.Sequential(nn.ReLU(), *sequential(layers[1:]))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] → [B, C, h, w]."""
        return x + self.layers(x)


def sequential(layers: tuple[Layer, ...]) -> nn.Sequential:
    """Returns the network of the layers that `works` describes, for images [B, C, H, W]."""
    return nn.Sequential(*map(_layer, layers))


def _layer(layer: Layer) -> nn.Module:
    match layer:
        case ("conv", c_in, c_out, k, s):
            return nn.Conv2d(c_in, c_out, k, s, padding=(k - 1) // 2)
        case ("up", c_in, c_out, k, s):
            pad = (k - 1) // 2
            return nn.ConvTranspose2d(c_in, c_out, k, s, pad, output_padding=s + 2 * pad - k)
        case ("linear", inputs, outputs):
            return nn.Linear(inputs, outputs)
        case ("residual", layers):
            return Residual(layers)
        case ("grid", height, width, channels):
            return nn.Unflatten(1, (channels, height, width))
        case ("flatten",):
            return nn.Flatten()
        case ("relu",):
            return nn.ReLU(inplace=True)
    raise AssertionError(layer)


class VAE(nn.Module):
    """β-VAE; for `conditional_vae` its encoder and its decoder also see a label."""

    def __init__(self, work: Work):
        """Builds it."""
        super().__init__()
        self.encoder, self.decoder = sequential(work.encoder), sequential(work.decoder)
        self.beta, self.dim = work.config.model.beta.end, work.config.model.latent_dim
        self.embedding: Any = None
        if work.conditional:
            width = work.config.model.embedding_dim
            self.embedding = nn.Embedding(NUM_CLASSES, width)
            self.null = nn.Parameter(torch.randn(width))
            self.dropout = work.config.model.label_dropout

    def noise(self, size: int) -> tuple[Tensor, Any]:
        """Returns the draws of a step: ε [B, D], and which examples lose their label [B] bool."""
        device = next(self.parameters()).device
        epsilon = torch.randn(size, self.dim, device=device)
        if self.embedding is None:
            return epsilon, None
        return epsilon, torch.rand(size, device=device) < self.dropout

    def forward(
        self,
        image: Tensor,
        label: Tensor | None = None,
        noise: Any = None,
    ) -> Tensor:
        """Returns −log p(x|z) + β·KL, nats, a mean over the batch of images [B, C, H, W] uint8."""
        epsilon, drop = self.noise(len(image)) if noise is None else noise
        x, condition = image.float() / 255, None
        inputs = x
        if self.embedding is not None:
            condition = torch.where(drop[:, None], self.null, self.embedding(label))
            inputs = torch.cat([x.flatten(1), condition], 1)
        mean, log_variance = self.encoder(inputs).float().chunk(2, 1)
        log_variance = log_variance.clamp(-20.0, 20.0)
        z = mean + torch.exp(0.5 * log_variance) * epsilon
        logits = self.decoder(z if condition is None else torch.cat([z, condition], 1)).float()
        nll = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
        return (nll + self.beta * kl) / len(x)


class Quantizer(nn.Module):
    """Nearest codes; they follow the encodings by moving averages (van den Oord et al. 2017)."""

    def __init__(self, config: Any):
        """Draws the codes."""
        super().__init__()
        section, dim = config.model.quantizer, config.model.latent_dim
        self.decay, self.epsilon = section.decay, section.epsilon
        limit = math.sqrt(3.0 / dim)
        codes = torch.empty(section.num_codes, dim).uniform_(-limit, limit)
        self.register_buffer("codes", codes)
        self.register_buffer("counts", torch.zeros(len(codes)))
        self.register_buffer("sums", torch.zeros_like(codes))
        self.register_buffer("weight", torch.zeros(()))
        # What `forward` has seen, [K + K·D], for processes that first add it up; see `move`.
        self.register_buffer("seen", torch.zeros(len(codes) + codes.numel()), persistent=False)
        self.moves = True

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """[B, D, h, w] → the vectors of the codes [B, D, h, w], and the mean squared distance."""
        flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        with torch.no_grad():
            # Without ‖z‖², which doesn't change which code is nearest.
            distances = torch.addmm(self.codes.square().sum(1), flat, self.codes.T, alpha=-2)
            indices = distances.argmin(1)
            values = F.embedding(indices, self.codes)
            self._see(flat.detach(), indices)
        commitment = F.mse_loss(flat, values)
        # Straight-through: the encoder gets the decoder's gradient as if nothing were rounded.
        values = flat + (values - flat).detach()
        return values.view(len(z), *z.shape[2:], -1).permute(0, 3, 1, 2), commitment

    def _see(self, flat: Tensor, indices: Tensor) -> None:
        """Adds up the encodings `flat` [N, D] and their codes `indices` [N]."""
        # `bincount` would have the compiler cut the model in two: it doesn't know that length.
        ones = torch.ones_like(indices, dtype=self.counts.dtype)
        counts = torch.zeros_like(self.counts).index_add_(0, indices, ones)
        sums = torch.zeros_like(self.codes).index_add_(0, indices, flat)
        if self.moves:
            self._move(counts, sums)
        else:
            torch.cat([counts, sums.flatten()], out=self.seen)

    @torch.no_grad()
    def move(self, seen: Tensor) -> None:
        """Moves the codes; `seen` [K + K·D] has each code's count, then the sums of encodings."""
        counts, sums = seen.split([len(self.codes), self.codes.numel()])
        self._move(counts, sums.view_as(self.codes))

    def _move(self, counts: Tensor, sums: Tensor) -> None:
        num = len(self.codes)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        used = self.counts / self.weight
        smoothed = (used + self.epsilon) / (used.sum() + num * self.epsilon) * used.sum()
        self.codes.copy_(self.sums / self.weight / smoothed[:, None])


class VQVAE(nn.Module):
    """VQ-VAE; its quantiser maps [B, D, h, w] to vectors of that shape and an unweighted loss."""

    def __init__(self, work: Work, quantizer: nn.Module | None = None):
        """Builds it, with `Quantizer` unless another quantiser is given."""
        super().__init__()
        config = work.config
        self.encoder, self.decoder = sequential(work.encoder), sequential(work.decoder)
        self.quantizer = Quantizer(config) if quantizer is None else quantizer
        self.commitment, self.variance = config.model.quantizer.commitment, config.data.variance

    def forward(self, image: Tensor) -> Tensor:
        """Returns squared error / variance + β·‖z − e‖², means, of images [B, C, H, W] uint8."""
        x = image.float() / 255
        encodings = self.encoder(x - 0.5).float()
        # Distances at half precision would choose other codes.
        with torch.autocast(x.device.type, enabled=False):
            values, commitment = self.quantizer(encodings)
        error = F.mse_loss(self.decoder(values).float() + 0.5, x)
        return error / self.variance + self.commitment * commitment


def make(work: Work) -> nn.Module:
    """Returns the work's model."""
    if work.is_prior:
        return pytorch_prior.Prior(work)
    return VQVAE(work) if work.config.model.name == "vq_vae" else VAE(work)
