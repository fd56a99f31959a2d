"""Load clients side by side: what they cost, and how true their times are.

    python benchmarks/load_clients.py [--quick] [--seconds 10] [--realtime] [--parts PART ...] [--clients CLIENT ...]

The client has one core, the server another. Tried are ours, through its worker process and log, on both transports;
`vllm bench serve`, from vLLM's environment for the CPU, which is made first where it is not there (minutes, about 2 GB;
the pipeline and the tests use the same), or from `--vllm-python`; and a bare aiohttp loop that counts events and parses
nothing.

- `throughput`: a closed loop of 8 users on a server that sends each answer of 128 tokens in one go. Tokens for each CPU
  second of the client's processes, by the kernel's accounts, from the first request to the last.
- `arrivals`: 200 requests/s, Poisson, 64 tokens 10 ms apart, the first after 50 ms. The server notes when each request
  was there and when each token was written. TTFT error: the client's less the server's; ITL error: the same of each
  gap, without sign; send lag: arrival at the server less the schedule, of which the client's own is until it sends.
- `golden`: ours at that rate on the bench's live server, which notes when it wrote each token. First tokens and ITL
  should agree with that within 0.5 ms (median) and 2 ms (p99); what does not is marked.
- `command`: what all processes of `inference-energy load-test` take at that rate.
- `stress`: ours with 10,000 requests in flight, and beside the arrivals above 5 requests/s with prompts of 50,000
  tokens, or with answers of 1 MB in one go.
- `pacer`: lateness of the pacer and of the event loops' own sleep.
- `tls`: the first two over https://, ours on both transports.

`--realtime` gives client and server real-time priority, which stands in for cores without other work. Prints tables and
a JSON object; nothing here fails for being slow.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from load.scenarios import BARE, GENERAL, PLAIN, VLLM, Setting

from inference_energy.acquire.vllm_environment import CACHE_VARIABLE, ensure_environment
from inference_energy.errors import RunError
from load import scenarios

ROOT = Path(__file__).parents[1]
PARTS = ("throughput", "arrivals", "golden", "command", "stress", "pacer", "tls")
CLIENTS = {"plain": PLAIN, "aiohttp": GENERAL, "vllm": VLLM, "bare": BARE}
SECONDS, QUICK_SECONDS = 10.0, 2.0
QUICK_HELD = 500
SPREADS = {
    "ttft_error_ms": "TTFT error",
    "itl_error_ms": "ITL error",
    "send_lag_ms": "send lag",
    "own_lateness_ms": "of it the client's own",
}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SECONDS:g} s each, {QUICK_HELD} in flight")
    parser.add_argument("--seconds", type=float, help=f"of each measurement; {SECONDS:g}")
    parser.add_argument("--realtime", action="store_true", help="real-time priority for client and server")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--clients", nargs="+", choices=list(CLIENTS), default=list(CLIENTS))
    parser.add_argument("--vllm-python", type=Path, help="a Python that has vLLM")
    parser.add_argument("--json", type=Path, help="write the JSON object there instead of printing it")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    clients = [CLIENTS[name] for name in given.clients]
    compared = VLLM in clients and not {"throughput", "arrivals"}.isdisjoint(given.parts)
    vllm_python = (given.vllm_python or vllm_environment()) if compared else None
    seconds = given.seconds or (QUICK_SECONDS if given.quick else SECONDS)
    setting = Setting(seconds, cores[-1], cores[0], given.realtime, vllm_python)
    held = QUICK_HELD if given.quick else scenarios.HELD
    results: dict[str, Any] = {
        "seconds": seconds,
        "realtime": given.realtime,
        "cores_shared": len(cores) == 1,
        "python": sys.version.split()[0],
    }
    for part in given.parts:
        results[part] = run(part, clients, setting, held)
        print(in_words(part, results[part]), flush=True)
    text = json.dumps(results, indent=1)
    if given.json:
        given.json.write_text(text + "\n")
    else:
        print(text)


def run(part: str, clients: list[str], setting: Setting, held: int) -> dict[str, Any]:
    """The figures of one part, by client or case."""
    if part == "throughput":
        return {client: scenarios.throughput(client, setting) for client in clients}
    if part == "arrivals":
        return {client: scenarios.arrivals(client, setting) for client in clients}
    if part == "golden":
        return {client: scenarios.golden(client, setting) for client in clients if client in (PLAIN, GENERAL)}
    if part == "command":
        return {"load-test": scenarios.command_line(setting)}
    if part == "pacer":
        return scenarios.pacers(setting)
    if part == "stress":
        return {
            "in flight": scenarios.in_flight_client(setting, held),
            "1 MB answers beside": scenarios.beside_long_ones(setting, "answers"),
            "50,000-token prompts beside": scenarios.beside_long_ones(setting, "prompts"),
            "1 MB answers alone": scenarios.throughput(PLAIN, setting, scenarios.LONG_ANSWER_TOKENS),
        }
    with tempfile.TemporaryDirectory(prefix="load-clients-") as name:
        secure = replace(setting, certificate=certificate(Path(name)))
        ours = [client for client in clients if client in (PLAIN, GENERAL)]
        return {
            f"{client}, {kind}": measure(client, secure)
            for kind, measure in (("throughput", scenarios.throughput), ("arrivals", scenarios.arrivals))
            for client in ours
        }


def vllm_environment() -> Path:
    """The Python of the environment that the pipeline uses; made if it is not there.

    Raises:
        SystemExit: it cannot be made.
    """
    os.environ.setdefault(CACHE_VARIABLE, str(ROOT / ".cache"))
    try:
        return ensure_environment("cpu", ROOT / "envs" / "cpu", lambda text: print(text, file=sys.stderr, flush=True))
    except RunError as error:
        without = " ".join(name for name in CLIENTS if name != "vllm")
        raise SystemExit(
            f"{error}\nName a Python that has vLLM: --vllm-python; or do without: --clients {without}"
        ) from None


def certificate(folder: Path) -> Path:
    """A certificate with its key."""
    key, signed, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(signed), "-days", "2", "-subj", "/CN=server"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    both.write_text(signed.read_text() + key.read_text())
    return both


def in_words(part: str, found: dict[str, Any]) -> str:
    """A table of one part."""
    return "\n".join([f"{part}:", *(f"  {name:<28} {one_line(figures)}" for name, figures in found.items())])


def one_line(figures: dict[str, Any]) -> str:
    """What matters of one measurement."""
    said = []
    if "tokens_per_cpu_s" in figures:
        said.append(f"{figures['tokens_per_cpu_s'] / 1e3:.0f} k tokens/CPU-s")
    if "bytes_each" in figures:
        said.append(f"{figures['completed']} of {figures['in_flight']}, {figures['bytes_each'] / 1e3:.1f} kB each")
    for key, words in SPREADS.items():
        if spread := figures.get(key):
            said.append(f"{words} mean {spread['mean']:.2f}, p50 {spread['p50']:.2f}, p99 {spread['p99']:.2f} ms")
    if beyond := [name for name, good in figures.get("within_marks", {}).items() if not good]:
        said.append(f"BEYOND ITS MARK: {', '.join(beyond)}")
    if figures.get("achieved_per_offered") is not None:
        said.append(f"achieved {figures['achieved_per_offered']:.3f}")
    if "cpu_ms_per_request" in figures:
        said.append(f"{figures['cpu_ms_per_request']:.2f} CPU-ms/request")
    if "p99" in figures:
        said.append(f"lateness p50 {figures['p50'] * 1e3:.0f}, p99 {figures['p99'] * 1e3:.0f} us")
    if "rss_mb" in figures:
        memory = (figures[key] for key in ("sending_rss_mb", "rss_mb", "pss_mb"))
        said.append("{:.0f} MB while sending, at most {:.0f} (PSS {:.0f})".format(*memory))
        if figures["failed"]:
            said.append(f"FAILED {figures['failed']}")
        busy = [figures["client_cpu_share"], figures["others_on_client_core"]]
        busy += [figures["server_cpu_share"], figures["others_on_server_core"]]
        said.append("client core {:.0%} + others {:.0%}, server core {:.0%} + others {:.0%}".format(*busy))
    return "; ".join(said)


if __name__ == "__main__":
    main()
