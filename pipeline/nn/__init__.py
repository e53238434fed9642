"""What models are made of: losses, likelihoods, schedules, networks, quantizers."""
