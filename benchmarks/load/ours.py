"""Our client as a program: the team of load processes, and the process that leads it.

python ours.py JOB.json
"""

import asyncio
import json
import sys
from pathlib import Path

from inference_energy.acquire.load.standalone import LoadRun, run_test


def main() -> None:
    """Run one job."""
    job = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(job["folder"])
    settings = LoadRun(
        endpoints=(job["endpoint"],),
        model="m",
        duration_s=job["seconds"],
        workload={"ignore_eos": True, "chunk_times": job["chunk_times"]},
        client={"transport": job["transport"], "drain_s": 60.0, "verify": False},
    )
    asyncio.run(run_test(folder, settings))


if __name__ == "__main__":
    main()
