"""Encoders to a grid of vectors, and decoders from it: for codes, and for latents."""
