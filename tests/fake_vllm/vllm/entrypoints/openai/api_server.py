"""`python -m vllm.entrypoints.openai.api_server` starts the stub server."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[4] / "stub_server.py"), run_name="__main__")
