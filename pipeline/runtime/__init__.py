"""One process: command line, config, signals, peers, files. Imports no JAX when it is loaded."""
