"""What is made from a saved run: reports, comparisons, samples, codes."""
