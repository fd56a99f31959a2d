"""The operating system, and whether it runs in a virtual machine or a container."""

import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import psutil

from inference_energy.acquire.environment.facts import Facts, MissingFactError


def os_facts(root: Path = Path("/")) -> Facts:
    """Distribution, kernel, virtualisation and power mode; `root` is where /etc, /proc and /sys lie."""
    facts = Facts("os")
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
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)"?$', (root / "etc/os-release").read_text(), re.MULTILINE)
    if not found:
        raise MissingFactError("os-release names no distribution")
    return found[1]


def _virtual_machine(root: Path) -> str | bool:
    """The kind of virtual machine, True where only the processor's hypervisor flag shows one, False on bare metal."""
    told = _detect_virt("--vm", root)
    if told is not None:
        return False if told == "none" else told
    cpuinfo = (root / "proc/cpuinfo").read_text()
    return bool(re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE))


def _container(root: Path) -> str | bool:
    """The kind of container, or False."""
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    cgroup = (root / "proc/1/cgroup").read_text()
    found = re.search(r"\b(docker|kubepods|containerd|libpod|lxc|slurm)\b", cgroup)
    if found:
        return found[1]
    told = _detect_virt("--container", root)
    return False if told in (None, "none") else str(told)


def _detect_virt(kind: str, root: Path) -> str | None:
    """The answer of systemd-detect-virt about this machine, or None where it has none."""
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
