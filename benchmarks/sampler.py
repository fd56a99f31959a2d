"""What the power sampler costs and how punctual it is, on eight virtual GPUs.

    python benchmarks/sampler.py [--seconds 20] [--zeus-python PATH]

The sampler at 100 Hz and at 10 Hz, each in a process of its own on a virtual node. Counted is the processor time of the
whole process, and what of it was not spent in a channel's read, or not within an NVML function; and how long after its
deadline each round of polls began, beside a program that does nothing but wait for the same deadlines at the same time:
what is late there, the machine makes late. Also at 10 Hz a loop that reads and sleeps 0.1 s, and Zeus' PowerMonitor
where `--zeus-python` names a Python that has it. The aims: below 2 % of a core beyond the reads, and p99 below 2 ms, at
100 Hz. Prints a line each and a JSON object; nothing here fails for being slow.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Any

GPUS = 8
WARM_UP_S = 2.0
CHILDREN = ("sampler", "bare", "loop", "zeus")

ZEUS_SHIM = """
from inference_energy.bench.shims.pynvml import *

NVML_DEVICE_ARCH_VOLTA, NVML_DEVICE_ARCH_HOPPER = 5, 9

def _nvmlGetFunctionPointer(name):
    raise NVMLError(NVML_ERROR_FUNCTION_NOT_FOUND)

def nvmlDeviceGetC2cModeInfoV(handle):
    raise NVMLError(NVML_ERROR_NOT_SUPPORTED)

def nvmlDeviceGetArchitecture(handle):
    return NVML_DEVICE_ARCH_HOPPER
"""
"""What Zeus asks of pynvml beyond what the bench stands in for: all of it is about the kind of GPU."""


def main() -> None:
    """Run all and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--zeus-python", type=Path, help="a Python with the package zeus")
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--interval", type=float, default=0.1, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        measures = {"sampler": measure_sampler, "bare": measure_bare, "loop": measure_loop, "zeus": measure_zeus}
        run = measures[given.child]
        # The sampler says what it does on standard output: the last line is ours.
        print(json.dumps(run(given.interval, given.seconds)), flush=True)
        return
    results: dict[str, Any] = {"seconds": given.seconds, "gpus": GPUS, "others_cores": others_cores()}
    for name, child, interval_s in (
        ("sampler at 100 Hz", "sampler", 0.01),
        ("sampler at 10 Hz", "sampler", 0.1),
        ("read and sleep 0.1 s", "loop", 0.1),
        ("Zeus PowerMonitor at 10 Hz", "zeus", 0.1),
    ):
        python = given.zeus_python if child == "zeus" else Path(sys.executable)
        if python is None:
            results[name] = {"missing": "no --zeus-python was given"}
            continue
        results[name] = on_eight_gpus(python, child, interval_s, given.seconds)
        print(f"{name}: {in_words(results[name])}", flush=True)
    print(json.dumps(results, indent=1))


def on_eight_gpus(python: Path, child: str, interval_s: float, seconds: float) -> dict[str, Any]:
    """Run one child on a fresh virtual node; what it found."""
    from inference_energy.bench.config import Node
    from inference_energy.bench.live.cli_wrapper import bench_environment
    from inference_energy.bench.live.node import make_node

    with tempfile.TemporaryDirectory(prefix="sampler-") as name:
        made = make_node(Path(name) / "node", Node.parse({"model": "llama-3.1-70b", "tensor_parallel": GPUS}))
        environment = bench_environment(made, os.environ)
        if child == "zeus":
            shim = Path(name) / "shim"
            shim.mkdir()
            (shim / "pynvml.py").write_text(ZEUS_SHIM)
            # Zeus' own packages come first; what the stand-in needs is found behind them.
            behind = [str(Path(__file__).parents[1] / "src"), sysconfig.get_path("purelib")]
            environment["PYTHONPATH"] = os.pathsep.join([str(shim), *behind])
        command = [str(python), __file__, "--child", child, "--interval", str(interval_s), "--seconds", str(seconds)]
        bare = [sys.executable, __file__, "--child", "bare", "--interval", str(interval_s), "--seconds", str(seconds)]
        waiting = subprocess.Popen(bare, stdout=subprocess.PIPE, text=True)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        bare_late_ms = json.loads(waiting.communicate()[0])
        if done.returncode:
            return {"missing": (done.stderr.strip().splitlines() or ["it failed without a word"])[-1]}
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return {**found, "bare_late_ms": bare_late_ms}


class CpuMeter:
    """Processor time within some functions, over all threads, as `thread_time` counts it."""

    def __init__(self) -> None:
        self._by_thread: dict[int, float] = {}

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, metered."""

        @wraps(function)
        def metered(*arguments: Any) -> Any:
            before_s = time.thread_time()
            try:
                return function(*arguments)
            finally:
                thread = threading.get_ident()
                self._by_thread[thread] = self._by_thread.get(thread, 0.0) + time.thread_time() - before_s

        return metered

    def seconds(self) -> float:
        """So far."""
        return sum(self._by_thread.copy().values())


def measure_sampler(interval_s: float, seconds: float) -> dict[str, Any]:
    """The sampler as its process runs it, after a warm-up."""
    import pynvml

    from inference_energy.acquire.power import sampler
    from inference_energy.acquire.power.base import SensorChannel as Channel
    from inference_energy.acquire.power.choose import candidates, choose
    from inference_energy.acquire.power.settings import SamplerSpec

    within_nvml, within_reads = CpuMeter(), CpuMeter()
    for name in vars(pynvml):
        if name.startswith("nvmlDeviceGet"):
            setattr(pynvml, name, within_nvml.around(getattr(pynvml, name)))
    with tempfile.TemporaryDirectory() as folder:
        # A status file that is never made stands for no server: other users of the GPUs are then looked for as well.
        spec = SamplerSpec(
            interval_s=interval_s,
            duration_s=WARM_UP_S + seconds,
            sources=["nvml"],
            server_status=Path(folder) / "none.json",
        )
        sources = choose(spec.sources, candidates(spec))
        for kind in {type(channel) for channel in sources[0].channels()}:
            assert issubclass(kind, Channel)
            setattr(kind, "read_many", within_reads.around(kind.read_many))  # noqa: B010 - of each kind its own
        sources[0].close()

        def now() -> tuple[float, float, float, float]:
            return time.monotonic(), time.process_time(), within_reads.seconds(), within_nvml.seconds()

        begun = [now()]
        timer = threading.Timer(WARM_UP_S, lambda: begun.append(now()))
        timer.start()
        sampler.tune_sampler_process()
        counts = sampler.Sampler(spec, sources, Path(folder) / "power.arrows").run()
        wall_s, cpu_s, reads_s, nvml_s = (end - start for end, start in zip(now(), begun[-1], strict=True))
    fast = next(channel for channel in counts["channels"] if channel["period_s"] == interval_s)
    return {
        "cpu_share": cpu_s / wall_s,
        "cpu_share_in_reads": reads_s / wall_s,
        "cpu_share_beyond_reads": (cpu_s - reads_s) / wall_s,
        "cpu_share_beyond_nvml": (cpu_s - nvml_s) / wall_s,
        "late_ms": fast["late_ms"],
        "polls_late": fast["late"],
        "polls_missed": fast["missed"],
        "rounds": fast["reads"],
        "rounds_due": round(counts["elapsed_s"] / interval_s),
        "reads": sum(channel["reads"] for channel in counts["channels"]),
        "rows": sum(channel["rows"] for channel in counts["channels"]),
        "errors": sum(channel["errors"] for channel in counts["channels"]),
    }


def measure_bare(interval_s: float, seconds: float) -> dict[str, float]:
    """How late a program wakes that only waits for such deadlines, as the sampler waits for them."""
    from inference_energy.acquire.power.polling import Deadlines, Lateness

    never, lateness = threading.Event(), Lateness()
    start_ns = time.monotonic_ns()
    deadlines = Deadlines(start_ns, round(interval_s * 1e9))
    while (now_ns := time.monotonic_ns()) < start_ns + seconds * 1e9:
        due_ns = deadlines.advance(now_ns)
        never.wait((due_ns - now_ns) / 1e9)
        lateness.add(time.monotonic_ns() - due_ns)
    return lateness.in_ms()


def measure_loop(interval_s: float, seconds: float) -> dict[str, Any]:
    """`while True: read; time.sleep(interval)`, as many a script has it: power, utilisation and memory of each GPU."""
    import pynvml

    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    rounds, late_ms = 0, []
    cpu_s, start_s = time.process_time(), time.monotonic()
    while (now_s := time.monotonic()) < start_s + seconds:
        late_ms.append((now_s - start_s - rounds * interval_s) * 1e3)
        for handle in handles:
            pynvml.nvmlDeviceGetPowerUsage(handle)
            pynvml.nvmlDeviceGetUtilizationRates(handle)
            pynvml.nvmlDeviceGetMemoryInfo(handle)
        rounds += 1
        time.sleep(interval_s)
    wall_s = time.monotonic() - start_s
    return {
        "cpu_share": (time.process_time() - cpu_s) / wall_s,
        "rounds": rounds,
        "rounds_due": round(wall_s / interval_s),
        "drift_ms_per_s": late_ms[-1] / wall_s,
        "late_ms": {"p50": sorted(late_ms)[len(late_ms) // 2], "max": max(late_ms)},
    }


def measure_zeus(interval_s: float, seconds: float) -> dict[str, Any]:
    """Zeus' PowerMonitor, whose processes poll one domain each; it keeps a value only where it changed."""
    import psutil
    from zeus.monitor import PowerMonitor  # type: ignore[import-not-found]  # only its own Python has it

    monitor = PowerMonitor(update_period=interval_s)
    time.sleep(WARM_UP_S)
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]

    def used_s() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    cpu_s, start_s = used_s(), time.monotonic()
    time.sleep(seconds)
    cpu_s, wall_s = used_s() - cpu_s, time.monotonic() - start_s
    timelines = monitor.get_all_power_timelines()
    monitor.stop()
    times_s = sorted({when for series in timelines.values() for when, _ in series[0]})
    one = sorted({when for when, _ in timelines["device_instant"][0]})
    rounds = [round((when - one[0]) / interval_s) for when in one]
    return {
        "cpu_share": cpu_s / wall_s,
        "processes": len(processes),
        "samples_of_first_gpu": len(times_s),
        "rounds": len(one),
        "rounds_due": rounds[-1] + 1,
        "drift_ms_per_s": slope_ms_per_s(one),
    }


def slope_ms_per_s(times_s: list[float]) -> float:
    """How much later each poll is than 0.1 s after the one before, over the time: by the usual spacing."""
    spacings_s = sorted(after - before for before, after in pairwise(times_s))
    spacing_s = spacings_s[len(spacings_s) // 2]
    return 1e3 * (spacing_s / round(spacing_s / 0.1) - 0.1) / spacing_s if spacing_s > 0.05 else 0.0


def in_words(found: dict[str, Any]) -> str:
    """One line."""
    if "missing" in found:
        return f"not measured: {found['missing']}"
    words = [f"{found['cpu_share']:.2%} of a core"]
    if "cpu_share_beyond_reads" in found:
        words.append(f"{found['cpu_share_beyond_reads']:.2%} beyond the reads")
        words.append(f"{found['cpu_share_beyond_nvml']:.2%} beyond NVML's functions")
    words.append(f"{found['rounds']} of {found['rounds_due']} rounds")
    if "late_ms" in found:
        words.append(f"late by {milliseconds(found['late_ms'])}")
    if "drift_ms_per_s" in found:
        words.append(f"drift {found['drift_ms_per_s']:.2f} ms/s")
    words.append(f"a bare wait at the same time is late by {milliseconds(found['bare_late_ms'])}")
    return "; ".join(words)


def milliseconds(late_ms: dict[str, float]) -> str:
    """Percentiles in words."""
    return ", ".join(f"{name} {value:.2f} ms" for name, value in late_ms.items())


def others_cores() -> float:
    """How many cores other programs kept busy in the second before: they make polls late."""
    import psutil

    return float(psutil.cpu_percent(interval=1.0)) / 100 * (os.cpu_count() or 1)


if __name__ == "__main__":
    main()
