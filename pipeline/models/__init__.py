"""Model variants: one file each, with its whole equation; `config.model.name` is its name."""
