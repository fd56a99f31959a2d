"""How much faster than real time the offline bench runs, as a ratio within one run.

    python benchmarks/offline_speed.py [--rate 50] [--duration 600]

One H100 with the Llama-3.1-8B shape serves Poisson arrivals, prompts of 256 tokens (standard deviation 64) and answers
of 128, on one core. Counted is the whole of it, the simulation and the writing of all raw files, against the virtual
time from the node's beginning to its end, and against the time under load alone.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from inference_energy.bench.config import Node
from inference_energy.bench.offline.raw_files import write_session
from inference_energy.bench.offline.session import simulate
from inference_energy.validation.scenarios import LoadWindow, Scenario


def main() -> None:
    """Run once and print a line and a JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=float, default=50.0, help="requests/s")
    parser.add_argument("--duration", type=float, default=600.0, help="seconds of load")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    load = LoadWindow("load", "steady", options.duration, options.rate, output=128)
    plan = Scenario("speed", "", (load,)).plan(1)
    simulate(Scenario("warm", "", (LoadWindow("load", "steady", 5.0, options.rate),)).plan(1), Node())
    with tempfile.TemporaryDirectory() as folder:
        begun_s = time.perf_counter()
        session = simulate(plan, Node())
        simulated_s = time.perf_counter() - begun_s
        write_session(session, Path(folder))
        whole_s = time.perf_counter() - begun_s
    virtual_s = (session.phases[-1]["end_ns"] - session.origin_ns) / 1e9
    result = {
        "rate_qps": options.rate,
        "requests": len(plan.schedule),
        "steps": session.engines[0].step,
        "virtual_s": virtual_s,
        "load_s": options.duration,
        "simulation_s": simulated_s,
        "with_writing_s": whole_s,
        "times_real_time": virtual_s / whole_s,
        "times_real_time_under_load": options.duration / whole_s,
    }
    print(json.dumps(result, indent=1))
    print(
        f"{options.duration:.0f} s of load at {options.rate:g} requests/s (simulated) took {whole_s:.2f} s on one "
        f"core: {result['times_real_time_under_load']:.0f} times real time"
    )


if __name__ == "__main__":
    main()
