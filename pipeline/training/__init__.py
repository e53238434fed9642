"""One run: its setup, batches, step, checkpoints, and the loop over them."""
