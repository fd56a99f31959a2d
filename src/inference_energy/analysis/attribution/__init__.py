"""Rules that share a window's energy among its requests."""
