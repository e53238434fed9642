"""Configs: `default.py` declares every field, each other file states a variant's differences."""
