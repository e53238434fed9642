"""What is made from a saved run: a model in Python, reports, samples, codes, exports."""
