"""The fields of `pipeline.nn.image_terms`, which the models that have these terms share."""

from ml_collections import ConfigDict


def add(config: ConfigDict) -> None:
    """Adds the sections `model.perceptual` and `model.adversarial`, both off, and its Adam's."""
    config.model.perceptual = ConfigDict()  # needs the extra perceptual
    config.model.perceptual.weight = 0.0  # w, in the unit of the loss; 0: off
    config.model.perceptual.network = "vgg"  # alex takes a twentieth of the time; from 31 pixels on

    game = config.model.adversarial = ConfigDict()
    game.weight = 0.0  # λ of the decoder's term; 0: no discriminator
    game.start_step = 0  # neither player plays before it
    game.warmup_steps = 0  # in which λ grows from 0, so that the discriminator learns first
    game.loss = "hinge"  # hinge, non_saturating
    game.channels = 64  # of the discriminator's first layer
    game.num_layers = 3  # of stride 2; a judgement sees 70×70 pixels with 3, 34×34 with 2
    game.regularization = "none"  # none, r1, lecam
    game.regularization_weight = 0.0  # 10 is usual for r1, 0.001 for lecam
    game.r1_every_steps = 16  # r1 in every N-th step, N times as strong
    # Adam of the discriminator: 0 and () leave it the rate and the betas of all other parts
    config.optimizer.own_rates = ConfigDict({"discriminator": 0.0})
    config.optimizer.own_betas = ConfigDict({"discriminator": ()})
