"""Estimates of a recorded session's windows, beside what was measured."""
