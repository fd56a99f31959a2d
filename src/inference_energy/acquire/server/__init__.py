"""The server under measurement: launched and guarded, or attached to, and its own metrics."""
