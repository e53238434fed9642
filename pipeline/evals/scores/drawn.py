"""The images that a protocol draws, and the sample that their encodings make.

Locatello et al. 2019 train on all images and draw from all of them, by uniform and independent
factors. A data set that has one image for every combination of factors, as dSprites and sprites
have, gives the same draws by uniform rows. So the protocol's images come from the whole data set:
those that this project trains on and those that it holds out.

Difference from disentanglement_lib: it draws the groups of the FactorVAE and β-VAE scores from all
images, which are encoded again for each of them. Here they come from `num_images` images, which
are encoded once; 0 stands for all.
"""

from typing import Any, NamedTuple

import numpy as np

from pipeline import datasets
from pipeline.evals.scores import examples, protocols
from pipeline.training import posteriors, watched

GROUPED = ("factor_vae_score", "beta_vae_score")  # the metrics that draw groups


class Images(NamedTuple):
    """The images that a protocol encodes."""

    protocol: str
    source: watched.Watched
    rows: np.ndarray  # of the source; with locatello the pool of the groups comes last
    num_drawn: int  # how many come before the pool

    @property
    def chosen(self) -> datasets.Subset:
        """The images in the order in which they are encoded."""
        return datasets.Subset(self.source, self.rows)


def images(config: Any, heldout: datasets.Source, protocol: str) -> Images:
    """Draws the images of a protocol.

    Args:
        config: of the run; its seed decides what is drawn.
        heldout: the held-out examples, of which the quick protocol takes some.
        protocol: `protocols.LOCATELLO` or `protocols.QUICK`.

    Raises:
        InputError: the data set has too few images for locatello.
    """
    # RandomState, not Generator: its stream is frozen (NEP 19), so figures stay comparable.
    random, settings = np.random.RandomState(config.seed % 2**32), config.disentanglement
    if protocol == protocols.QUICK:
        rows = random.permutation(len(heldout))[: settings.num_examples or len(heldout)]
        return Images(protocol, watched.Watched(heldout), rows, len(rows))
    whole = datasets.whole(config)
    protocols.check_size(len(whole))
    rows = random.randint(len(whole), size=protocols.NUM_TRAIN + protocols.NUM_TEST)
    pool = rows[:0]
    if any(metric in settings.metrics for metric in GROUPED):
        pool = random.permutation(len(whole))[: settings.num_images or len(whole)]
    drawn = len(rows)
    return Images(protocol, watched.Watched(whole), np.concatenate([rows, pool]), drawn)


def sample(found: Images, encoded: posteriors.Encodings) -> examples.Sample:
    """Returns the sample that metrics are computed from, for the encodings of all images."""
    codes, factors, num = encoded.mean, encoded.attributes["factors"], found.num_drawn
    if found.protocol == protocols.QUICK:
        return examples.quick(codes, factors)
    return examples.locatello(codes[:num], factors[:num], codes[num:], factors[num:])
