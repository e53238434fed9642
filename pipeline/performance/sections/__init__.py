"""Sections of the benchmark: one file each, with `measure(bench)` → {"what, unit": figure}."""
