"""The CPU and the memory, from /proc and /sys."""

import re
from pathlib import Path

import psutil

from inference_energy.acquire.environment.facts import Facts, MissingFactError

_NO_CPUFREQ = "the kernel shows no clock control (cpufreq), as in most virtual machines"
_NOT_SHOWN = "this CPU's frequency driver does not show it"


def cpu_facts(root: Path = Path("/")) -> Facts:
    """Model, counts, clocks and governor of the CPU; `root` is where /proc and /sys lie."""
    facts = Facts("cpu")
    cpufreq = root / "sys/devices/system/cpu/cpu0/cpufreq"
    facts.add("model", lambda: _model(root))
    facts.add("sockets", lambda: _sockets(root))
    facts.add("cores", lambda: _known(psutil.cpu_count(logical=False), "the system does not tell cores from threads"))
    facts.add("logical", lambda: _known(psutil.cpu_count(logical=True), "the system does not count its CPUs"))
    facts.add("base_clock_mhz", lambda: int(_clock_control(cpufreq, "base_frequency")) / 1e3)
    facts.add("max_clock_mhz", lambda: int(_clock_control(cpufreq, "cpuinfo_max_freq")) / 1e3)
    facts.add("turbo", lambda: _turbo(root))
    facts.add("governor", lambda: _clock_control(cpufreq, "scaling_governor"))
    facts.add("frequency_driver", lambda: _clock_control(cpufreq, "scaling_driver"))
    facts.add("tdp_w", lambda: _tdp_w(root))
    return facts


def memory_facts(root: Path = Path("/")) -> Facts:
    """Memory and swap in bytes, and the limit that a container has."""
    facts = Facts("memory")
    facts.add("total_bytes", lambda: int(psutil.virtual_memory().total))
    facts.add("swap_bytes", lambda: int(psutil.swap_memory().total))
    facts.add("limit_bytes", lambda: _memory_limit(root))
    return facts


def _known(count: int | None, reason: str) -> int:
    if not count:
        raise MissingFactError(reason)
    return count


def _model(root: Path) -> str:
    found = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", _cpuinfo(root), re.MULTILINE)
    if not found:
        raise MissingFactError("/proc/cpuinfo names no model")
    return found[1].strip()


def _sockets(root: Path) -> int:
    ids = set(re.findall(r"^physical id\s*:\s*(\d+)$", _cpuinfo(root), re.MULTILINE))
    if not ids:
        raise MissingFactError("/proc/cpuinfo shows no physical ids")
    return len(ids)


def _cpuinfo(root: Path) -> str:
    return (root / "proc/cpuinfo").read_text()


def _clock_control(folder: Path, name: str) -> str:
    """One of cpufreq's files; clocks in it are in kHz."""
    return _text(folder / name, _NOT_SHOWN if folder.is_dir() else _NO_CPUFREQ)


def _turbo(root: Path) -> bool:
    cpu = root / "sys/devices/system/cpu"
    if (cpu / "intel_pstate/no_turbo").exists():
        return (cpu / "intel_pstate/no_turbo").read_text().strip() == "0"
    return _clock_control(cpu / "cpufreq", "boost") == "1"


def _tdp_w(root: Path) -> float:
    """The sum over the packages of RAPL's long-term maximum, which Intel fills with the thermal design power."""
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]*"))
    packages = [zone for zone in zones if _text(zone / "name", "").startswith("package")]
    maxima = [zone / "constraint_0_max_power_uw" for zone in packages]
    watts = [int(_text(path, "")) / 1e6 for path in maxima if path.exists()]
    if not watts or not all(watts):
        raise MissingFactError("no interface here tells it: take it from the data sheet and write power.modelled.tdp_w")
    return sum(watts)


def _memory_limit(root: Path) -> int:
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = root / name
        if path.exists():
            text = path.read_text().strip()
            # Version 1 writes "no limit" as the largest page-aligned number.
            if text != "max" and int(text) < 2**62:
                return int(text)
    raise MissingFactError("no control group limits the memory")


def _text(path: Path, reason: str) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise MissingFactError(reason or "the system does not show it") from error
