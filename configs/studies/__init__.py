"""Studies: several methods, each with several seeds, and what is compared of them."""
