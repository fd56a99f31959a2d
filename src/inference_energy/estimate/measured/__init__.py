"""Measured rows: published ones that are shipped, and the user's own tables."""
