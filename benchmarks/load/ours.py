"""Our client as a program: the pool of load processes, and their parent.

python ours.py JOB.json
"""

import asyncio
import json
import sys
from pathlib import Path

from inference_energy.acquire.load.standalone import LoadRun, run_plan
from inference_energy.config.load.client import ClientConfig
from inference_energy.contracts.load_client import WorkloadSettings


def main() -> None:
    """Run one job."""
    job = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(job["folder"])
    settings = LoadRun(
        endpoints=(job["endpoint"],),
        model="m",
        duration_s=job["seconds"],
        workload=WorkloadSettings(ignore_eos=True, chunk_times=job["chunk_times"]),
        client=ClientConfig(transport=job["transport"], drain_s=60.0, verify=False),
    )
    asyncio.run(run_plan(folder, settings))


if __name__ == "__main__":
    main()
