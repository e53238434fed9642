"""Prepared data sets of small pictures, and what is read of them."""

import hashlib

import numpy as np
from ml_collections import ConfigDict

from pipeline import prepare
from pipeline.datasets import prepared


def config(path, **changes):
    return ConfigDict({"path": str(path), "copy": "auto"} | changes)


def make(source, out, *flags, processes=1):
    """Prepares a source in this process or in others, and returns the line that says what it is."""
    arguments = [f"--source={source}", f"--out={out}", f"--processes={processes}", *flags]
    return prepare.run(prepare.parse(["prepare", *arguments]))


def load(path, **changes):
    """Opens a prepared data set as a new process would."""
    prepared.manifest_of.cache_clear()
    return prepared.load(config(path, **changes))


def everything(source):
    return source.read(np.arange(len(source)))


def digests(folder):
    """Returns the SHA-256 of every file, by name."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }
