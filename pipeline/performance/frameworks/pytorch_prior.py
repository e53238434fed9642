"""The prior over codes in PyTorch: its own attention, which needs no matrix of all scores."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.performance.frameworks.works import NUM_CLASSES, Layer, Work

EPSILON = 1e-6  # of the layer normalisation, as in Flax


class Positions(nn.Module):
    """Learned vectors that are added, and dropout."""

    def __init__(self, num: int, width: int, dropout: float):
        """Draws a vector for each place."""
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(num, width))
        self.dropout = nn.Dropout(dropout, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, F] → [B, T, F]."""
        return self.dropout(x + self.table)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, dropout: float):
        """Builds the layers; queries, keys and values come from one product."""
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, EPSILON) for _ in range(2))
        self.inputs, self.outputs = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, F] → [B, T, F]."""
        parts = self.inputs(self.norms[0](x)).view(*x.shape[:2], 3, self.heads, -1)
        mixed = F.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4), is_causal=True)
        x = x + self.dropout(self.outputs(mixed.transpose(1, 2).reshape(x.shape)))
        hidden = F.gelu(self.widen(self.norms[1](x)), approximate="tanh")
        return x + self.dropout(self.narrow(hidden))


class Prior(nn.Module):
    """A causal transformer over codes; the vector of the label is its first input."""

    def __init__(self, work: Work):
        """Builds it."""
        super().__init__()
        section = work.config.model
        first, *rest = (_layer(layer, section.dropout) for layer in work.decoder)
        self.embedding, self.layers = first, nn.Sequential(*rest)
        self.labels = nn.Embedding(NUM_CLASSES, section.width)
        self.null = nn.Parameter(torch.randn(section.width))
        self.label_dropout = section.label_dropout

    def forward(self, codes: Tensor, label: Tensor, noise: Tensor | None = None) -> Tensor:
        """Returns −log p, nats per code, a mean over the batch.

        Args:
            codes: [B, h, w] int64.
            label: [B] int64.
            noise: which examples lose their label, [B] bool; None: drawn.
        """
        if noise is None:
            noise = torch.rand(len(label), device=label.device) < self.label_dropout
        condition = torch.where(noise[:, None], self.null, self.labels(label))
        codes = codes.flatten(1)
        inputs = torch.cat([condition[:, None], self.embedding(codes[:, :-1])], 1)
        return F.cross_entropy(self.layers(inputs).flatten(0, 1), codes.flatten())


def _layer(layer: Layer, dropout: float) -> nn.Module:
    match layer:
        case ("embedding", num, width):
            return nn.Embedding(num, width)
        case ("positions", num, width):
            return Positions(num, width, dropout)
        case ("block", width, heads):
            return Block(width, heads, dropout)
        case ("norm", width):
            return nn.LayerNorm(width, EPSILON)
        case ("linear", inputs, outputs):
            return nn.Linear(inputs, outputs)
    raise AssertionError(layer)
