"""Further terms of an objective, for images that look sharp: w·LPIPS(x, x̂) and an adversary's.

Esser et al. 2021 (arXiv:2012.09841), section 3.1, with constant weights: the paper's weight λ is a
ratio of two gradients, which would take two more backward passes. `lpips` has the distance, and
`adversarial` the terms of both players.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline.nn.image_terms import adversarial, lpips
from pipeline.nn.image_terms.adversarial import warnings
from pipeline.nn.metrics import Metrics
from pipeline.runtime import errors

__all__ = ["ImageTerms", "first_stats", "warnings"]


class ImageTerms(nnx.Module):
    """The terms whose weights `config.model.perceptual` and `config.model.adversarial` give.

    Without these sections, or with weights of 0, there are none.
    """

    def __init__(self, config: Any, shape: tuple[int, int, int], *, rngs: nnx.Rngs):
        """Builds the discriminator, if there is one.

        Args:
            config: the whole config; reads `model`, `compute_dtype` and `deterministic_shards`.
            shape: (H, W, C) of an image.
            rngs: the stream `params`. Build everything else first: the order decides the values.

        Raises:
            InputError: a value cannot work, LPIPS's weights are not installed, or it does not take
                images of this shape.
        """
        self.perceptual_weight, playing = (
            _weight(config, name) for name in ("perceptual", "adversarial")
        )
        wanted = self.perceptual_weight > 0
        self.lpips = lpips.Distance(config.model.perceptual.network, shape) if wanted else None
        self.game = _game(config, shape, rngs) if playing else None

    def __call__(self, generated: Array, image: Array, *, step: Array) -> dict[str, Array]:
        """Returns the terms of every example, [B] each.

        Args:
            generated: [B, H, W, C], the decoder's images; they may leave [0, 1].
            image: [B, H, W, C] in [0, 1].
            step: int32 scalar.
        """
        terms = {}
        if self.lpips is not None:
            terms["perceptual"] = self.lpips(generated, image)
        if self.game is not None:
            terms |= self.game(generated, image, step=step)
        return terms

    def loss(self, means: dict[str, Array], *, step: Array) -> Array:
        """Returns what the terms add to the objective."""
        total = jnp.float32(0.0)
        if self.lpips is not None:
            total += self.perceptual_weight * means["perceptual"]
        return total if self.game is None else total + self.game.loss(means, step=step)

    def statistics(self, terms: dict[str, Array], mask: Array) -> dict[str, dict[str, Array]]:
        """Returns sums over true examples, to merge with a model's own: `game`, or none."""
        sums = {} if self.game is None else self.game.statistics(terms, mask)
        return {"game": sums} if sums else {}

    def update(self, sums: dict[str, Any]) -> None:
        """Moves averages by the global sums."""
        if self.game is not None:
            self.game.update(sums.get("game", {}))

    def metrics(self, means: dict[str, Array], *, step: Array) -> Metrics:
        """Returns the figures to log."""
        figures = {} if self.lpips is None else {"perceptual_loss": means["perceptual"]}
        return figures if self.game is None else figures | self.game.metrics(means, step=step)


def first_stats(config: Any, example: Any, stats: Any) -> Any:
    """Returns `stats` of step 0 with the weights of LPIPS in the place of zeros, if it is a term.

    `models.first_stats` calls it; arguments as there.
    """
    del example
    if not _weight(config, "perceptual"):
        return stats
    filled = jax.tree.map(lambda leaf: leaf, stats)  # a copy, whose branches may be replaced
    branch = filled["image_terms"]["lpips"]
    branch["weights"] = lpips.filled(branch["weights"], config.model.perceptual.network)
    return filled


def _weight(config: Any, name: str) -> float:
    weight = config.model[name].weight if name in config.model else 0.0
    errors.check_not_negative(f"config.model.{name}.weight", weight)
    return weight


def _game(config: Any, shape: tuple[int, int, int], rngs: nnx.Rngs) -> adversarial.Adversarial:
    section, shards = config.model.adversarial, config.deterministic_shards
    if shards and section.regularization == "r1":
        raise errors.InputError(
            "config.model.adversarial.regularization='r1' needs config.deterministic_shards=0, not "
            f"{shards}: the bits of its second derivative depend on the mesh; lecam keeps them"
        )
    return adversarial.Adversarial(section, shape, dtype=config.compute_dtype, rngs=rngs)
