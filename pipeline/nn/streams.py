"""The reserved random streams: numbers that no step, example or sample of a run has.

A key is folded from the seed: `fold_in(key(seed), step)` for a training step, then
`fold_in(…, position)` for an example of its batch. What draws outside the steps takes one of these
numbers in place of the step's (below 2³¹) or, within an example, of a sample's.
"""

# In place of the step.
EVALUATION = 2**32 - 1  # the noise of held-out examples: the sample of z in every evaluation
INITIALISATION = 2**32 - 2  # the first parameters of a model
RESTARTS = 2**32 - 3  # the vectors of a batch from which unused codes restart; then by step
# Folded into an example's key; importance-weighted samples of z have the numbers from 0.
CONDITIONS = 2**32 - 1  # whether its conditions are dropped; conditions drawn for a sample
