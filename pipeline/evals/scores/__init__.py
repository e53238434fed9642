"""How well latents and factors match: one metric a file, on NumPy arrays, knowing no model.

Every metric's file has `Scores`, a NamedTuple of its figures, and `scores(codes, factors, seed=0)`:
codes [N, D] are posterior means, factors [N, F] class indices. The N examples must be in random
order: the first two thirds train the learners, the rest test them. Factors of a single value say
nothing and are dropped. `mig_chen` takes whole posteriors, and `udr` those of several runs.
"""
