"""Evaluations: one file each; the entries of `config.evals` are the files' names."""
