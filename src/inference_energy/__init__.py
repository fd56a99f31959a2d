"""Inference Energy Toolkit: measured energy of LLM serving."""

__version__ = "0.1.0"
