"""The parts that models are built from: losses, likelihoods, schedules, networks, quantisers."""
