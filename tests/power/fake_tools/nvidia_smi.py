"""Speaks like nvidia-smi 580 for GPUs that a JSON file describes, which is read anew for every line.

`nvidia_smi.py FILE ARGUMENTS...`. Keys of FILE: `gpus` (a list of {field: value as written}), `fields` (those known,
with their aliases), `fail` ([text, exit code], instead of any answer), `quiet` (run, but write nothing), `die` (end
within a line), `garbage` (a line to write before the others). Each start is added to FILE.starts, with its
arguments and environment.
"""

import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path


def main() -> int:
    file, arguments = Path(sys.argv[1]), sys.argv[2:]
    with Path(f"{file}.starts").open("a") as starts:
        starts.write(json.dumps({"pid": os.getpid(), "arguments": arguments, "environment": dict(os.environ)}) + "\n")
    node = json.loads(file.read_text())
    if "fail" in node:
        text, code = node["fail"]
        print(text)
        return int(code)
    if "--help-query-gpu" in arguments:
        print("List of valid properties to query for the switch --query-gpu:\n")
        for names in node["fields"]:
            print(" or ".join(f'"{name}"' for name in names) + "\nWhat it means.\n")
        return 0
    query = next(argument for argument in arguments if argument.startswith("--query-gpu="))
    fields = query.partition("=")[2].split(",")
    known = {name for names in node["fields"] for name in names}
    for field in fields:
        if field not in known:
            print(f'Field "{field}" is not a valid field to query.\n')
            return 2
    assert "--format=csv,noheader,nounits" in arguments
    loops = "-lms" in arguments
    period_s = int(arguments[arguments.index("-lms") + 1]) / 1000 if loops else 0.0
    while True:
        node = json.loads(file.read_text())
        if loops and "die" in node:
            print(values(node["gpus"][0], fields)[:-1], end="", flush=True)
            return 9
        if not node.get("quiet"):
            if loops and "garbage" in node:
                print(node["garbage"])
            for gpu in node["gpus"]:
                print(values(gpu, fields), flush=True)
        if not loops:
            return 0
        time.sleep(period_s)


def values(gpu: dict[str, str], fields: list[str]) -> str:
    timestamp = datetime.now().strftime("%Y/%m/%d %H:%M:%S.%f")[:-3]
    return ", ".join(timestamp if field == "timestamp" else gpu.get(field, "[N/A]") for field in fields)


if __name__ == "__main__":
    sys.exit(main())
