"""Recorded traces, one file a format."""
