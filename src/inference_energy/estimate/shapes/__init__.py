"""Model shapes: what a model reads and computes for a token, from its config.json."""
