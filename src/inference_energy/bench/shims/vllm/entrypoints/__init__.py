"""Where vLLM keeps what can be run."""
