"""Speaks like Intel PCM's pcm-power, for sockets that a JSON file describes, which is read anew for every block.

`pcm_power.py FILE ARGUMENTS...`. Keys of FILE: `sockets` (a list of [package W, DRAM W]), `fail` ([text, exit code] on
standard error, instead of blocks), `die` (end within the first line of energy), `quiet` (write nothing), `drop` (leave
out this many lines of energy at the start of the block), `skx` (write the lines of a Xeon Scalable too). Each start is
added to FILE.starts.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main() -> int:
    file, arguments = Path(sys.argv[1]), sys.argv[2:]
    with Path(f"{file}.starts").open("a") as starts:
        starts.write(json.dumps({"pid": os.getpid(), "arguments": arguments}) + "\n")
    node = json.loads(file.read_text())
    print("\n Intel(r) Performance Counter Monitor  (202302-1)\n\n Power Monitoring Utility", file=sys.stderr)
    if "fail" in node:
        text, code = node["fail"]
        print(text, file=sys.stderr)
        return int(code)
    assert arguments[1:5] == ["-m", "-1", "-p", "-1"]
    delay_s = float(arguments[0])
    blocks = 1 if "-i=1" in arguments else 10**9
    print("\nMC counter group: -1\nPCU counter group: -1", file=sys.stderr)
    for _ in range(blocks):
        print("-" * 94)
        # As the tool does: a block is written out at the start of the next wait.
        sys.stdout.flush()
        time.sleep(delay_s)
        node = json.loads(file.read_text())
        if node.get("quiet"):
            continue
        lines = block(node, delay_s)
        if "die" in node and "-i=1" not in arguments:
            print("".join(lines)[:90], end="", flush=True)
            return 3
        print("".join(lines), end="")
        if blocks > 1:
            with Path(f"{file}.blocks").open("a") as written:
                written.write("x")
    return 0


def block(node: dict[str, Any], delay_s: float) -> list[str]:
    lines = []
    for number, (package_w, dram_w) in enumerate(node["sockets"]):
        if node.get("skx"):
            lines.append(f"S{number}; Uncore Freq: 1.40 Ghz; Core Freq: 2.60 Ghz; Core Power License 0: 99.10 %; \n")
        package_j, dram_j = package_w * delay_s, dram_w * delay_s
        lines.append(
            f"S{number}; Consumed energy units: {int(package_j * 16384)}; Consumed Joules: {package_j:.2f}; "
            f"Watts: {package_w:.2f}; Thermal headroom below TjMax: 45\n"
        )
        lines.append(
            f"S{number}; Consumed DRAM energy units: {int(dram_j * 16384)}; Consumed DRAM Joules: {dram_j:.2f}; "
            f"DRAM Watts: {dram_w:.2f}\n"
        )
    head = [f"Time elapsed: {1000 * delay_s:.0f} ms\n", f"Called sleep function for {1000 * delay_s:.0f} ms\n"]
    return head + lines[node.get("drop", 0) :]


if __name__ == "__main__":
    sys.exit(main())
