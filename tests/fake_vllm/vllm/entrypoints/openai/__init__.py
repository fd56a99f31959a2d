"""Stands in for vLLM in tests: the stub server under vLLM's module name."""
