"""How good images are: distances of pairs, and the Fréchet distance of two sets of features."""
