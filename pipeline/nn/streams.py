"""The reserved random streams: numbers that no step, example or sample of a run uses.

A training step folds its key from the seed, `fold_in(key(seed), step)`, and an example of its batch
folds `fold_in(…, position)`. Code that draws outside the steps uses one of these numbers in place
of the step, which is below 2³¹. Within an example it uses one in place of a sample's number.
"""

import jax
from jax import Array

# In place of the step.
EVALUATION = 2**32 - 1  # the noise of held-out examples: the sample of z in every evaluation
INITIALISATION = 2**32 - 2  # the first parameters of a model
RESTARTS = 2**32 - 3  # the vectors of a batch from which unused codes restart; then folds the step
QUALITY = 2**32 - 4  # the samples of an evaluation of image quality; then folds the sample's number
# Folded into an example's key. Importance-weighted samples of z use the numbers from 0.
CONDITIONS = 2**32 - 1  # whether its conditions are dropped, and the conditions of a sample
PRIOR = 2**32 - 2  # its draw of the prior, beside its sample of z
PERMUTATIONS = 2**32 - 3  # the numbers by which each latent is permuted over a batch
AUGMENTATION = 2**32 - 4  # how its image is mirrored and cut for training
DROPOUT = 2**31  # which features are dropped: from here on, a number for each call


def within(keys: Array, stream: int) -> Array:
    """Returns the key of a stream within each example, [B], from the examples' keys [B]."""
    return jax.vmap(lambda key: jax.random.fold_in(key, stream))(keys)
