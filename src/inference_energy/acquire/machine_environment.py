"""The machine a measurement ran on: GPUs, CPU, memory, operating system, Python and this project, for environment.json.

A fact that cannot be had is null, and its reason stands beside it.
"""

import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from inference_energy import __version__
from inference_energy.acquire.power.simulated import simulated_node
from inference_energy.acquire.power.sources.nvml.device import list_instances
from inference_energy.contracts.io import write_json


class MissingFactError(Exception):
    """A fact is not available; the message says why, without a path or a user name of this machine."""


class EnvironmentFacts:
    """Collects facts under a dotted prefix.

    Attributes:
        values: the section as it is written, in the order of the calls.
        missing: the reason of each null, by its dotted key.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.values: dict[str, Any] = {}
        self.missing: dict[str, str] = {}

    def add(self, key: str, get: Callable[[], Any]) -> None:
        """Add one fact; `get` raises MissingFactError or OSError if it is not available."""
        try:
            self.values[key] = get()
        except MissingFactError as error:
            self.add_missing(key, str(error))
        except OSError as error:
            self.add_missing(key, f"the system does not show it: {error.strerror or type(error).__name__}")

    def add_missing(self, key: str, reason: str) -> None:
        """Add null, with its reason."""
        self.values[key] = None
        self.missing[f"{self._prefix}.{key}"] = reason


_NO_CPUFREQ = "the kernel shows no clock control (cpufreq), as in most virtual machines"
_NOT_SHOWN = "this CPU's frequency driver does not show it"


def cpu_facts(root: Path = Path("/")) -> EnvironmentFacts:
    """Return model, counts, clocks and governor of the CPU; `root` holds /proc and /sys."""
    facts = EnvironmentFacts("cpu")
    cpufreq = root / "sys/devices/system/cpu/cpu0/cpufreq"
    facts.add("model", lambda: _model(root))
    facts.add("sockets", lambda: _sockets(root))
    facts.add("cores", lambda: _count(psutil.cpu_count(logical=False), "the system does not tell cores from threads"))
    facts.add("logical", lambda: _count(psutil.cpu_count(logical=True), "the system does not count its CPUs"))
    facts.add("base_clock_mhz", lambda: int(_clock_control(cpufreq, "base_frequency")) / 1e3)
    facts.add("max_clock_mhz", lambda: int(_clock_control(cpufreq, "cpuinfo_max_freq")) / 1e3)
    facts.add("turbo", lambda: _turbo(root))
    facts.add("governor", lambda: _clock_control(cpufreq, "scaling_governor"))
    facts.add("frequency_driver", lambda: _clock_control(cpufreq, "scaling_driver"))
    facts.add("tdp_w", lambda: _tdp_w(root))
    return facts


def memory_facts(root: Path = Path("/")) -> EnvironmentFacts:
    """Return memory and swap in bytes, and a container's memory limit."""
    facts = EnvironmentFacts("memory")
    facts.add("total_bytes", lambda: int(psutil.virtual_memory().total))
    facts.add("swap_bytes", lambda: int(psutil.swap_memory().total))
    facts.add("limit_bytes", lambda: _memory_limit(root))
    return facts


def _count(count: int | None, reason: str) -> int:
    if not count:
        raise MissingFactError(reason)
    return count


def _model(root: Path) -> str:
    match = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", _cpuinfo(root), re.MULTILINE)
    if not match:
        raise MissingFactError("/proc/cpuinfo names no model")
    return match[1].strip()


def _sockets(root: Path) -> int:
    ids = set(re.findall(r"^physical id\s*:\s*(\d+)$", _cpuinfo(root), re.MULTILINE))
    if not ids:
        raise MissingFactError("/proc/cpuinfo shows no physical ids")
    return len(ids)


def _cpuinfo(root: Path) -> str:
    return (root / "proc/cpuinfo").read_text()


def _clock_control(folder: Path, name: str) -> str:
    """Read one of cpufreq's files; clocks are in kHz."""
    return _text(folder / name, _NOT_SHOWN if folder.is_dir() else _NO_CPUFREQ)


def _turbo(root: Path) -> bool:
    cpu = root / "sys/devices/system/cpu"
    if (cpu / "intel_pstate/no_turbo").exists():
        return (cpu / "intel_pstate/no_turbo").read_text().strip() == "0"
    return _clock_control(cpu / "cpufreq", "boost") == "1"


def _tdp_w(root: Path) -> float:
    """Return the sum of the packages' long-term RAPL maxima, which Intel sets to the thermal design power."""
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


# FP32 cores per streaming multiprocessor by compute capability.
# Source: CUDA C++ Programming Guide, "Compute Capabilities", the architecture sections.
_CORES_PER_SM = {
    (6, 0): 64,
    (6, 1): 128,
    (7, 0): 64,
    (7, 2): 64,
    (7, 5): 64,
    (8, 0): 64,
    (8, 6): 128,
    (8, 7): 128,
    (8, 9): 128,
    (9, 0): 128,
    (10, 0): 128,
    (10, 3): 128,
    (12, 0): 128,
    (12, 1): 128,
}


def gpu_facts(nvml: Any = None) -> tuple[list[dict[str, Any]] | None, dict[str, str]]:
    """Return every GPU in NVML's order, and the missing facts.

    Args:
        nvml: the module to use instead of pynvml.

    Returns:
        A mapping for each GPU, or None without NVML; and the reasons of missing facts by dotted key.
    """
    try:
        nvml = nvml or _pynvml()
        nvml.nvmlInit()
    except MissingFactError as error:
        return None, {"gpus": str(error)}
    except nvml.NVMLError as error:
        return None, {"gpus": f"NVML: {error}"}
    gpus: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            facts = _gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(index), f"gpus.{index}")
            gpus.append(facts.values)
            missing |= facts.missing
    except nvml.NVMLError as error:
        missing["gpus"] = f"NVML: {error}"
    finally:
        nvml.nvmlShutdown()
    return gpus, missing


def cuda_facts(nvml: Any = None) -> EnvironmentFacts:
    """Return the newest CUDA version that the driver supports."""
    facts = EnvironmentFacts("cuda")

    def driver_cuda() -> str:
        library = nvml or _pynvml()
        try:
            library.nvmlInit()
            try:
                version = library.nvmlSystemGetCudaDriverVersion_v2()
            finally:
                library.nvmlShutdown()
        except library.NVMLError as error:
            raise MissingFactError(f"NVML: {error}") from error
        return f"{version // 1000}.{version % 1000 // 10}"

    facts.add("driver_supports", driver_cuda)
    return facts


def _gpu(nvml: Any, handle: Any, prefix: str) -> EnvironmentFacts:
    facts = EnvironmentFacts(prefix)

    def ask(key: str, call: Callable[[], Any]) -> None:
        def get() -> Any:
            try:
                return call()
            except nvml.NVMLError as error:
                raise MissingFactError(f"NVML: {error}") from error

        facts.add(key, get)

    def clock(kind: str, maximum: bool) -> Callable[[], int]:
        read = nvml.nvmlDeviceGetMaxClockInfo if maximum else nvml.nvmlDeviceGetClockInfo
        return lambda: int(read(handle, getattr(nvml, kind)))

    def limits_w(index: int) -> Callable[[], float]:
        return lambda: nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)[index] / 1e3

    def switched(call: Callable[[Any], Any]) -> Callable[[], bool]:
        # NVML answers with the present and the pending state.
        return lambda: bool(call(handle)[0])

    ask("name", lambda: str(nvml.nvmlDeviceGetName(handle)))
    ask("uuid", lambda: str(nvml.nvmlDeviceGetUUID(handle)))
    ask("compute_capability", lambda: ".".join(map(str, nvml.nvmlDeviceGetCudaComputeCapability(handle))))
    ask("streaming_multiprocessors", lambda: _multiprocessors(nvml, handle))
    ask("memory_bytes", lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).total))
    ask("driver", lambda: str(nvml.nvmlSystemGetDriverVersion()))
    ask("vbios", lambda: str(nvml.nvmlDeviceGetVbiosVersion(handle)))
    ask("power_limit_enforced_w", lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3)
    ask("power_limit_default_w", lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) / 1e3)
    ask("power_limit_min_w", limits_w(0))
    ask("power_limit_max_w", limits_w(1))
    ask("sm_clock_mhz", clock("NVML_CLOCK_SM", False))
    ask("sm_clock_max_mhz", clock("NVML_CLOCK_SM", True))
    ask("memory_clock_mhz", clock("NVML_CLOCK_MEM", False))
    ask("memory_clock_max_mhz", clock("NVML_CLOCK_MEM", True))
    ask("ecc", switched(nvml.nvmlDeviceGetEccMode))
    ask("mig", switched(nvml.nvmlDeviceGetMigMode))
    if facts.values.get("mig"):
        listed = list_instances(nvml, handle) or ()
        facts.add(
            "mig_instances", lambda: [{"uuid": instance.uuid, "profile": instance.profile} for instance in listed]
        )
    ask("persistence", lambda: bool(nvml.nvmlDeviceGetPersistenceMode(handle)))
    return facts


def _multiprocessors(nvml: Any, handle: Any) -> int:
    capability = tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))
    if capability not in _CORES_PER_SM:
        raise MissingFactError(f"the cores per multiprocessor of compute capability {capability} are not known here")
    return int(nvml.nvmlDeviceGetNumGpuCores(handle)) // _CORES_PER_SM[capability]


def _pynvml() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise MissingFactError("the Python package nvidia-ml-py is not installed") from error
    return pynvml


_PACKAGE = Path(__file__).resolve().parents[1]


def python_facts() -> EnvironmentFacts:
    """Return the interpreter's version. The server's own packages are recorded elsewhere."""
    facts = EnvironmentFacts("python")
    facts.add("version", platform.python_version)
    facts.add("implementation", platform.python_implementation)
    return facts


def project_facts(package: Path = _PACKAGE) -> EnvironmentFacts:
    """Return version, commit, and whether the files of the folder `package` differ from that commit."""
    facts = EnvironmentFacts("project")
    facts.add("version", lambda: __version__)
    facts.add("git_commit", lambda: _git(package, "rev-parse", "HEAD"))
    facts.add("git_dirty", lambda: bool(_git(package, "status", "--porcelain", "--", ".")))
    return facts


def _git(folder: Path, *arguments: str) -> str:
    # A package installed into a virtual environment inside another project must not take over that project's commit.
    if not _run_git(folder, "ls-files", "--", "__init__.py"):
        raise MissingFactError("the package does not lie in a git work tree of its own")
    return _run_git(folder, *arguments)


def _run_git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingFactError("git is not installed or does not answer") from error
    if done.returncode != 0:
        # Git's own words hold paths of this machine.
        raise MissingFactError("the package does not lie in a git work tree that git accepts")
    return done.stdout.strip()


def os_facts(root: Path = Path("/")) -> EnvironmentFacts:
    """Return distribution, kernel, virtualization and power mode; `root` holds /etc, /proc and /sys."""
    facts = EnvironmentFacts("os")
    facts.add("distribution", lambda: _distribution(root))
    facts.add("kernel", platform.release)
    facts.add("architecture", platform.machine)
    facts.add("virtual_machine", lambda: _virtual_machine(root))
    facts.add("container", lambda: _container(root))
    facts.add("clock_source", lambda: _line(root / "sys/devices/system/clocksource/clocksource0/current_clocksource"))
    facts.add("power_profile", lambda: _line(root / "sys/firmware/acpi/platform_profile"))
    facts.add("on_mains", _on_mains)
    return facts


def _distribution(root: Path) -> str:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)"?$', (root / "etc/os-release").read_text(), re.MULTILINE)
    if not match:
        raise MissingFactError("os-release names no distribution")
    return match[1]


def _virtual_machine(root: Path) -> str | bool:
    """Return the kind of virtual machine; True if only the CPU's hypervisor flag shows one, False on bare metal."""
    kind = _detect_virt("--vm", root)
    if kind is not None:
        return False if kind == "none" else kind
    cpuinfo = (root / "proc/cpuinfo").read_text()
    return bool(re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE))


def _container(root: Path) -> str | bool:
    """Return the kind of container, or False."""
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    cgroup = (root / "proc/1/cgroup").read_text()
    match = re.search(r"\b(docker|kubepods|containerd|libpod|lxc|slurm)\b", cgroup)
    if match:
        return match[1]
    kind = _detect_virt("--container", root)
    return False if kind in (None, "none") else str(kind)


def _detect_virt(kind: str, root: Path) -> str | None:
    """Return the output of systemd-detect-virt, or None if it has none."""
    if root != Path("/"):
        return None
    try:
        done = subprocess.run(["systemd-detect-virt", kind], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _on_mains() -> Any:
    battery = psutil.sensors_battery()
    if battery is None:
        raise MissingFactError("the system shows no battery, as on a server or a desktop")
    return battery.power_plugged


def _line(path: Path) -> str:
    return path.read_text().strip()


def capture(nvml: Any = None, root: Path = Path("/")) -> dict[str, Any]:
    """Return all facts of this machine, section by section.

    Args:
        nvml: the module to use instead of pynvml.
        root: folder of /etc, /proc and /sys.

    Returns:
        `simulated` (whether GPUs and power are simulated), `gpus` (a list, or null), `cpu`, `memory`, `os`, `python`,
        `cuda`, `project`, and `missing`: the reason of each null by its dotted key. There is no user name, path or
        secret in it.
    """
    gpus, missing = gpu_facts(nvml)
    environment: dict[str, Any] = {"simulated": simulated_node() is not None, "gpus": gpus}
    sections = {
        "cpu": cpu_facts(root),
        "memory": memory_facts(root),
        "os": os_facts(root),
        "python": python_facts(),
        "cuda": cuda_facts(nvml),
        "project": project_facts(),
    }
    for name, facts in sections.items():
        environment[name] = facts.values
        missing |= facts.missing
    environment["missing"] = dict(sorted(missing.items()))
    return environment


def write_environment(path: Path, nvml: Any = None, root: Path = Path("/")) -> dict[str, Any]:
    """Write the facts as JSON, and return them."""
    environment = capture(nvml, root)
    write_json(path, environment)
    return environment
