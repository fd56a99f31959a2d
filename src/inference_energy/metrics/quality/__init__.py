"""Right answers, and what they cost."""
