"""Distributed training of variational autoencoders in JAX."""
