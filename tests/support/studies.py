"""A small study, as a file: two methods with two seeds, of under a minute each."""

import json

FILE = """
import json
from ml_collections import ConfigDict

def get_study():
    fields = json.loads({text!r}, object_hook=lambda pairs: ConfigDict(pairs))
    as_tuple = lambda value: tuple(value) if isinstance(value, list) else value
    study = ConfigDict({{name: as_tuple(value) for name, value in fields.items()}})
    return study
"""
METHODS = {
    "one": ("configs/beta_vae.py:smoke", "--config.model.beta=4"),
    "two": ("configs/capacity_vae.py:smoke",),
}


def write(folder, **changes):
    """Writes study.py and returns its path as a text; None takes a field out."""
    declared = {
        "methods": METHODS,
        "overrides": ("--config.batch_size=32",),
        "seeds": (3, 5),
        "evals": ("heldout", "latents"),
        "metrics": ("elbo", "rate"),
    } | changes
    declared = {name: value for name, value in declared.items() if value is not None}
    path = folder / "study.py"
    path.write_text(FILE.format(text=json.dumps(declared)))
    return str(path)
