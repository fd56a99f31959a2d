"""The bench as vLLM: what is run of it is entrypoints/openai/api_server.py."""
