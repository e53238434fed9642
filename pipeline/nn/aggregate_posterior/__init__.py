"""What the whole batch says of the aggregate posterior q(z) = 1/N Σ_n q(z|n) of N examples."""
