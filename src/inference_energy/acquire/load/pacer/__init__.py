"""Waking at absolute times of the monotonic clock."""
