"""What `vllm bench serve` runs, in vLLM's own Python; the command itself does not start in vLLM's CPU build.

    python vllm_serve.py JOB.json

Its code is unchanged but for one thing: with `arrivals` its requests are due at those times, in place of those it would
draw, and the start it counts them from is noted, for it keeps no schedule.
"""

import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from vllm.benchmarks import serve  # type: ignore[import-not-found]
from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]


def main() -> None:
    """Run one job."""
    job = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(job["folder"])
    parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)
    command = ["--base-url", job["endpoint"], "--model", "m", "--tokenizer", job["tokenizer"], "--ignore-eos"]
    command += ["--dataset-name", "random", "--random-input-len", "16", "--random-output-len", str(job["tokens"])]
    command += ["--num-prompts", str(job["requests"]), "--save-result", "--save-detailed"]
    command += ["--result-dir", str(folder), "--result-filename", "result.json"]
    if job["arrivals"]:
        _follow([arrival_ns / 1e9 for _, arrival_ns in job["arrivals"]], folder / "start.json")
        command += ["--request-rate", str(job["rate_qps"])]
    else:
        command += ["--max-concurrency", str(job["users"])]
    serve.main(parser.parse_args(command))


def _follow(arrivals_s: list[float], note: Path) -> None:
    """Have the requests due at these times."""
    draw = serve.get_request

    async def get_request(requests: list[Any], rate: float, *others: Any) -> AsyncIterator[Any]:
        for request, arrival_s in zip(requests, arrivals_s, strict=True):
            request.timestamp = arrival_s
        start_ns = time.monotonic_ns()
        async for each in draw(requests, rate, self_timed=True):
            yield each
        note.write_text(json.dumps(start_ns))

    serve.get_request = get_request


if __name__ == "__main__":
    main()
