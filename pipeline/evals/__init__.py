"""Evaluations: one file each; the entries of `config.evals` are the files' names.

Each has `make(config, mesh, source) → evaluate`, and `evaluate(state)` yields (tag, value) pairs,
in the training loop and in `pipeline.evaluate` alike. `source` is the held-out data; `make` raises
an `errors.InputError` where the model or the data set has not what it needs. Tags are
`heldout/<name>`, and `pipeline.descriptions` says what each name means. A value is a float, an
array [N] (a histogram), [H, W, C] (a picture) or [T, H, W, C] uint8 (an animation), a text in
Markdown, or a function without arguments that draws one of these.

All processes evaluate together, and yield the same tags in the same order. Whatever needs several
of them, as the model does, is computed before the value is yielded; drawing is left to a function,
which process 0 alone calls, so that no other imports matplotlib or waits for pixels of no use.
"""
