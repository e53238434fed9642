"""A discriminator's game against the decoder, as terms of one objective: Goodfellow et al. 2014.

arXiv:1406.2661. Each player has the gradient of its own term only. So one backward pass serves
both, and one all-reduce and one optimizer with them:

    decoder        g(D(x̂)), where stop_gradient holds D's parameters
    discriminator  d(D(x), D(x̂)), where stop_gradient holds x̂

Both play at once, on one batch, while the paper takes turns.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from pipeline.nn import discriminators
from pipeline.nn.image_terms import patch_discriminator
from pipeline.runtime import errors, registry

LOSSES = ("hinge", "non_saturating")
REGULARIZATIONS = ("none", "r1", "lecam")
DECAY = 0.99  # of LeCAM's moving averages
# Shares of right judgements between which a game goes on.
LEAST_ACCURACY, MOST_ACCURACY = 0.55, 0.95


class Average(nnx.Variable):
    """A moving average that is a part of the state, and no parameter."""


class Adversarial(nnx.Module):
    """A discriminator of patches, and the terms of both players; means over patches."""

    def __init__(self, section: Any, shape: tuple[int, int, int], *, dtype: Any, rngs: nnx.Rngs):
        """Builds the discriminator; arguments are those of `PatchDiscriminator`.

        Raises:
            InputError: a value of `config.model.adversarial` cannot work.
        """
        field = "model.adversarial"
        registry.check(section.loss, LOSSES, field=f"{field}.loss")
        registry.check(section.regularization, REGULARIZATIONS, field=f"{field}.regularization")
        errors.check_not_negative(f"config.{field}.start_step", section.start_step)
        errors.check_not_negative(f"config.{field}.warmup_steps", section.warmup_steps)
        self.weight, self.start_step = section.weight, section.start_step
        self.warmup_steps = section.warmup_steps
        self.hinge, self.regularization = section.loss == "hinge", section.regularization
        self.regularization_weight = 0.0
        if self.regularization != "none":
            self.regularization_weight = section.regularization_weight
            if not self.regularization_weight > 0:
                raise errors.InputError(
                    f"config.{field}.regularization_weight={self.regularization_weight} must be "
                    f"positive for regularization={self.regularization!r}, such as 10 for r1 and "
                    "0.001 for lecam; regularization='none' switches it off"
                )
        self.discriminator = patch_discriminator.PatchDiscriminator(
            section, shape, dtype=dtype, rngs=rngs
        )
        if self.regularization == "r1":
            errors.check_range(f"config.{field}.r1_every_steps", section.r1_every_steps, 1)
            self.every = section.r1_every_steps
        if self.regularization == "lecam":
            self.of_true, self.of_false = Average(jnp.zeros(())), Average(jnp.zeros(()))
            self.seen = Average(jnp.zeros(()))  # Σ of the averages' weights, which debiases them

    def __call__(self, generated: Array, image: Array, *, step: Array) -> dict[str, Array]:
        """Returns the terms of every example, [B] each.

        Args:
            generated: [B, H, W, C], the decoder's images.
            image: [B, H, W, C] in [0, 1].
            step: int32 scalar.
        """
        # The decoder learns what raises these logits; D must not learn the same.
        judged = discriminators.frozen(self.discriminator)(generated)
        # D learns to tell both apart; the decoder must not learn to be told apart.
        of_true = self.discriminator(image)
        of_false = self.discriminator(lax.stop_gradient(generated))
        terms = {
            "generator": -judged if self.hinge else jax.nn.softplus(-judged),
            "discriminator": discriminator_loss(of_true, of_false, hinge=self.hinge),
            "right": discriminators.accuracy(of_true, of_false),
        }
        if self.regularization == "lecam":
            terms["penalty"] = self._lecam(of_true, of_false)
            terms |= {"of_true": of_true, "of_false": of_false}
        terms = {name: term.mean(axis=(1, 2)) for name, term in terms.items()}
        if self.regularization == "r1":
            terms["penalty"] = self._r1(image, step)
        return terms

    def loss(self, means: dict[str, Array], *, step: Array) -> Array:
        """Returns λ(step)·g + d + the penalty's weight · penalty; before `start_step` 0."""
        of_discriminator = means["discriminator"]
        if "penalty" in means:
            of_discriminator += self.regularization_weight * means["penalty"]
        begun = (step >= self.start_step).astype(jnp.float32)
        return self.weight_at(step) * means["generator"] + begun * of_discriminator

    def weight_at(self, step: Array) -> Array:
        """Returns λ(step): 0 before `start_step`, then a line to λ over `warmup_steps`."""
        played = jnp.maximum(step - self.start_step + 1, 0).astype(jnp.float32)
        return self.weight * jnp.minimum(played / max(1, self.warmup_steps), 1.0)

    def statistics(self, terms: dict[str, Array], mask: Array) -> dict[str, Array]:
        """Returns the sums over true examples that `update` needs; without LeCAM none."""
        names = ("of_true", "of_false") if self.regularization == "lecam" else ()
        sums = {name: lax.stop_gradient(terms[name] * mask).sum() for name in names}
        return sums | ({"num": mask.sum()} if sums else {})

    def update(self, sums: dict[str, Array]) -> None:
        """Moves LeCAM's averages by the global `statistics`."""
        if not sums:
            return
        for name, average in (("of_true", self.of_true), ("of_false", self.of_false)):
            average[...] = DECAY * average[...] + (1 - DECAY) * sums[name] / sums["num"]
        self.seen[...] = DECAY * self.seen[...] + (1 - DECAY)

    def metrics(self, means: dict[str, Array], *, step: Array) -> dict[str, Array]:
        """Returns the figures to log."""
        figures = {
            "generator_loss": means["generator"],
            "discriminator_loss": means["discriminator"],
            "discriminator_accuracy": means["right"],
            "adversarial_weight": self.weight_at(step),
        }
        return figures | ({"discriminator_penalty": means["penalty"]} if "penalty" in means else {})

    def _lecam(self, of_true: Array, of_false: Array) -> Array:
        """Returns (D(x) − α_F)² + (D(x̂) − α_R)², with moving averages α of the other's logits.

        Tseng et al. 2021 (arXiv:2104.03310), the penalty R_LC.
        """
        # Before the first update all three are 0, and so are the quotients.
        weight = jnp.maximum(self.seen[...], 1 - DECAY)
        to_false, to_true = self.of_false[...] / weight, self.of_true[...] / weight
        return jnp.square(of_true - to_false) + jnp.square(of_false - to_true)

    def _r1(self, image: Array, step: Array) -> Array:
        """Returns ½·‖∇_x D(x)‖² [B], with D's mean over patches, N times in every N-th step.

        Mescheder et al. 2018 (arXiv:1801.04406), eq. 9; seldom and stronger, as in Karras et al.
        2020 (arXiv:1912.04958), section 3.1. In all other steps it is 0, and costs nothing.
        """

        def penalty(image):
            score = lambda image: self.discriminator(image).mean(axis=(1, 2)).sum()  # noqa: E731
            slopes = jax.grad(score)(image)
            return 0.5 * self.every * jnp.square(slopes).sum(axis=(1, 2, 3))

        # Zeros that depend on the images: both branches must vary alike over the mesh.
        return lax.cond(step % self.every == 0, penalty, lambda image: 0 * image[:, 0, 0, 0], image)


def discriminator_loss(of_true: Array, of_false: Array, *, hinge: bool) -> Array:
    """Returns d of each patch, from logits of any shape.

    Hinge (Lim & Ye 2017, arXiv:1705.02894): ½·(max(0, 1 − D(x)) + max(0, 1 + D(x̂))), which is 1 if
    D says nothing. Otherwise the cross-entropy.
    """
    if hinge:
        return (jax.nn.relu(1.0 - of_true) + jax.nn.relu(1.0 + of_false)) / 2
    return discriminators.cross_entropy(of_true, of_false)


def warnings(figures: dict[str, float]) -> list[str]:
    """Returns warnings that follow from the held-out figures: one player has won."""
    accuracy = figures.get("discriminator_accuracy", 0.75)
    if not figures.get("adversarial_weight"):
        return []
    if accuracy > MOST_ACCURACY:
        return [
            f"the discriminator judges {accuracy:.1%} right: it has won, and the decoder learns "
            "little from it. Try a lower config.optimizer.own_rates.discriminator, "
            "config.model.adversarial.regularization='r1' or 'lecam', a later start_step, or fewer "
            "channels"
        ]
    if accuracy < LEAST_ACCURACY:
        return [
            f"the discriminator judges {accuracy:.1%} right, and chance is 50 %: it has lost, and "
            "the decoder learns noise from it. Try a higher "
            "config.optimizer.own_rates.discriminator, a lower "
            "config.model.adversarial.regularization_weight, or more channels"
        ]
    return []
