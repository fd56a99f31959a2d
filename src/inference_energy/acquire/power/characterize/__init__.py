"""Characterize."""
