"""How well latents and factors match: one metric per file, on NumPy arrays, without a model.

Each file defines `Scores`, a NamedTuple of its figures, and `scores(sample, seed=0)`. The sample
(`examples.Sample`) has the codes, which are posterior means [N, D], and the factors, class indices
[N, F]. `protocols` says how the two protocols differ, and names their figures. Factors of a single
value carry no information and are dropped. `mig_chen` needs whole posteriors, and `udr` needs the
posteriors of several runs.
"""
