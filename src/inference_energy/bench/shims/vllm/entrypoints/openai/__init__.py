"""Where vLLM keeps its OpenAI-compatible server."""
