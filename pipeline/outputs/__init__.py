"""What is made of a saved run: reports, comparisons, samples, codes."""
