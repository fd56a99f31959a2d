"""Modules under the names by which the pipeline looks for them; this folder goes onto PYTHONPATH."""
