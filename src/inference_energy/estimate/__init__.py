"""Estimates of energy per token that need no run, and how far they are from measured figures."""
