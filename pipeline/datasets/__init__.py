"""Data sets: one file each; `config.data.name` is the file's name."""
