"""The fields of `network=scalable` in the configs of Gaussian VAEs: a grid of latents.

The sizes are those of KL-f8, latent diffusion's autoencoder (Rombach et al. 2022, arXiv:2112.10752,
table 8): a 256×256 image has 32×32 places of `latent_dim` latents, 4 in the paper.
"""

from ml_collections import ConfigDict


def add_to(model: ConfigDict) -> None:
    """Adds the fields to the section `model`; only `network=scalable` reads them."""
    model.downsampling = 8  # f: f×f pixels share a place of the grid; 2^(levels − 1)
    model.channels = 128  # of the first level
    model.channel_multipliers = (1, 2, 4, 4)  # of each level, times `channels`
    model.blocks_per_level = 2  # residual blocks of each level
    add_memory_and_attention(model)


def add_memory_and_attention(model: ConfigDict) -> None:
    """Adds the fields that every `network=scalable` has in common, for codes too."""
    # Shorter sides of the grids that attend, such as (16,); (): none. With any of them, the
    # smallest grid has two more blocks with attention between them.
    model.attention_resolutions = ()
    model.remat = False  # compute blocks again in the backward pass: less memory, more work
