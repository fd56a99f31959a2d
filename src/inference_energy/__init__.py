"""Inference Energy Toolkit: measured energy, with error bars, for LLM serving."""

__version__ = "0.1.0"
