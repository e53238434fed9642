"""The parts that models are built from: losses, likelihoods, networks, quantisers, priors."""
