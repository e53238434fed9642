"""Many runs of one grid: what a study declares, its checks, its results, and their page."""
