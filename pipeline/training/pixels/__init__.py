"""The pixels of training images: how they vary, and how the step changes them at random."""
