"""Distributions over sequences of codes: each code given those before it."""
