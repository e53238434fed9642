"""How well latents and factors match: one metric per file, on NumPy arrays, without a model.

Each file defines `Scores`, a NamedTuple of its figures, and `scores(codes, factors, seed=0)`. codes
[N, D] are posterior means, and factors [N, F] are class indices. The N examples must be in random
order: the first two thirds train the learners, and the rest test them. Factors of a single value
carry no information and are dropped. `mig_chen` needs whole posteriors, and `udr` needs the
posteriors of several runs.
"""
