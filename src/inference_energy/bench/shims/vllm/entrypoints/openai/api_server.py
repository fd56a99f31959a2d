"""`python -m vllm.entrypoints.openai.api_server`: the bench's server."""

from inference_energy.bench.live.server import main

if __name__ == "__main__":
    main()
