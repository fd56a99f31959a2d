"""Where results come from: digests of code, archives of experiments, and checking them."""
