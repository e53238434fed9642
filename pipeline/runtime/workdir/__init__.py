"""The folder of a run: who may write it, and whether what it must hold is there and whole."""
