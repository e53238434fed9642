"""Configs: `default.py` declares every field, and each other file states only its differences."""
