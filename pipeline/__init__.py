"""Distributed training of variational autoencoders in JAX."""

__version__ = "0.3.0"
