"""Speaks like ipmitool 1.8.19 for a BMC that a JSON file describes.

`ipmitool.py FILE ARGUMENTS...`. Keys of FILE: `watts`, `state` (activated), `clock` (how the BMC's time is written;
null for the time now in whole seconds), `old` (write as 1.8.18 does), `fail` ([text, exit code]), `echo` (complain with
so many repetitions of all that it was told), `cut` (write only so many characters), `hang_s`, `user` and `password`
(what the BMC lets in). Each call is added to FILE.calls, with its arguments and environment.
"""

import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path


def main() -> int:
    file, arguments = Path(sys.argv[1]), sys.argv[2:]
    seen = {name: os.environ.get(name) for name in ("IPMI_PASSWORD", "IPMITOOL_PASSWORD")}
    with Path(f"{file}.calls").open("a") as calls:
        calls.write(json.dumps({"arguments": arguments, "environment": seen, "all": dict(os.environ)}) + "\n")
    node = json.loads(file.read_text())
    time.sleep(node.get("hang_s", 0))
    assert arguments[-3:] == ["dcmi", "power", "reading"]
    if "fail" in node:
        text, code = node["fail"]
        print(text, file=sys.stderr)
        return int(code)
    if "echo" in node:
        print(f"confused by {arguments} {seen} " * int(node["echo"]), file=sys.stderr)
        return 1
    if "-H" in arguments:
        assert arguments[arguments.index("-I") + 1] == "lanplus"
        assert "-E" in arguments
        # The tool's own order: IPMITOOL_PASSWORD goes before IPMI_PASSWORD.
        password = seen["IPMITOOL_PASSWORD"] or seen["IPMI_PASSWORD"]
        if (arguments[arguments.index("-U") + 1], password) != (node["user"], node["password"]):
            print("Error: Unable to establish IPMI v2 / RMCP+ session", file=sys.stderr)
            return 1
    text = reading(node)
    print(text[: node.get("cut", len(text))], end="")
    return 0


def reading(node: dict[str, object]) -> str:
    old = node.get("old")
    clock = node.get("clock") or datetime.now().strftime("%a %b %d %H:%M:%S %Y" if old else "%x %X UTC")
    return (
        f"\n    Instantaneous power reading:              {node['watts']:>8} Watts\n"
        f"    Minimum during sampling period:           {4:>8} Watts\n"
        f"    Maximum during sampling period:           {812:>8} Watts\n"
        f"    Average power reading over sample period: {301:>8} Watts\n"
        f"    IPMI timestamp:                           {clock}" + ("\n" if old else "") + "    Sampling period:"
        f"                          00000001 Seconds.\n"
        f"    Power reading state is:                   {node.get('state', 'activated')}\n\n\n"
    )


if __name__ == "__main__":
    sys.exit(main())
