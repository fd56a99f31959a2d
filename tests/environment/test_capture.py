"""What is recorded of a machine, and that a null always has its reason."""

import getpass
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pynvml
import pytest
from fake_nvml import FakeGpu, FakeNvml

from inference_energy.acquire.machine_environment import (
    capture,
    cpu_facts,
    cuda_facts,
    gpu_facts,
    memory_facts,
    os_facts,
    project_facts,
    write_environment,
)

CPUINFO = "".join(
    f"processor\t: {cpu}\nmodel name\t: Example CPU 9000\nphysical id\t: {cpu // 2}\nflags\t\t: fpu {flag}\n\n"
    for cpu, flag in enumerate(["vme", "vme", "vme", "vme"])
)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/cpuinfo": CPUINFO, "proc/1/cgroup": "0::/init.scope\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def nulls(value: Any, key: str = "") -> Iterator[str]:
    if value is None:
        yield key
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in items:
        yield from nulls(part, f"{key}.{name}" if key else str(name))


@pytest.mark.parametrize("gpus", [None, [FakeGpu("GPU-a"), FakeGpu("GPU-b", mig=None, capability=(99, 0))]])
def test_every_null_has_a_reason_and_every_reason_a_null(gpus: list[FakeGpu] | None) -> None:
    nvml = FakeNvml(gpus or [], broken=None if gpus else pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    environment = capture(nvml)
    missing = environment.pop("missing")
    assert set(nulls(environment)) == set(missing)
    assert all(reason for reason in missing.values())


def test_the_file_holds_no_user_and_no_path_and_is_the_same_twice(tmp_path: Path) -> None:
    nvml = FakeNvml([FakeGpu("GPU-a")])
    written = write_environment(tmp_path / "deep" / "environment.json", nvml)
    text = (tmp_path / "deep" / "environment.json").read_text()
    assert json.loads(text) == written
    assert list(written) == ["simulated", "gpus", "cpu", "memory", "os", "python", "cuda", "project", "missing"]
    for private in (str(Path.home()) + "/", str(Path.cwd()), f"/{getpass.getuser()}/"):
        assert private not in text
    write_environment(tmp_path / "again.json", nvml)
    assert (tmp_path / "again.json").read_text() == text
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["environment.json"]


def test_a_gpu_is_described() -> None:
    nvml = FakeNvml([FakeGpu("GPU-a")])
    gpus, missing = gpu_facts(nvml)
    assert missing == {}
    assert gpus == [
        {
            "name": "NVIDIA H100 80GB HBM3",
            "uuid": "GPU-a",
            "compute_capability": "9.0",
            "streaming_multiprocessors": 132,
            "memory_bytes": 85_899_345_920,
            "driver": "580.159.03",
            "vbios": "96.00.89.00.01",
            "power_limit_enforced_w": 650.0,
            "power_limit_default_w": 700.0,
            "power_limit_min_w": 200.0,
            "power_limit_max_w": 700.0,
            "sm_clock_mhz": 1755,
            "sm_clock_max_mhz": 1980,
            "memory_clock_mhz": 2619,
            "memory_clock_max_mhz": 2619,
            "ecc": True,
            "mig": False,
            "persistence": True,
        }
    ]
    assert cuda_facts(nvml).values == {"driver_supports": "13.1"}
    assert nvml.sessions == 0


def test_what_one_gpu_cannot_tell_is_named_by_its_key() -> None:
    gpus, missing = gpu_facts(FakeNvml([FakeGpu("GPU-a"), FakeGpu("GPU-b", mig=None, capability=(99, 0))]))
    assert gpus is not None
    assert gpus[1]["mig"] is gpus[1]["streaming_multiprocessors"] is None
    assert set(missing) == {"gpus.1.mig", "gpus.1.streaming_multiprocessors"}
    assert "Not Supported" in missing["gpus.1.mig"]


def test_a_bare_metal_cpu_with_clock_control(tmp_path: Path) -> None:
    cpufreq = "sys/devices/system/cpu/cpu0/cpufreq"
    root = tree(
        tmp_path,
        {
            f"{cpufreq}/base_frequency": "2400000\n",
            f"{cpufreq}/cpuinfo_max_freq": "4100000\n",
            f"{cpufreq}/scaling_governor": "performance\n",
            "sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
            "sys/class/powercap/intel-rapl:0/name": "package-0\n",
            "sys/class/powercap/intel-rapl:0/constraint_0_max_power_uw": "125000000\n",
            "sys/class/powercap/intel-rapl:1/name": "package-1\n",
            "sys/class/powercap/intel-rapl:1/constraint_0_max_power_uw": "125000000\n",
            "sys/class/powercap/intel-rapl:2/name": "psys\n",
            "sys/class/powercap/intel-rapl:2/constraint_0_max_power_uw": "900000000\n",
        },
    )
    facts = cpu_facts(root)
    assert facts.values["model"] == "Example CPU 9000"
    assert facts.values["sockets"] == 2
    assert facts.values["logical"] == psutil.cpu_count()
    assert (facts.values["base_clock_mhz"], facts.values["max_clock_mhz"]) == (2400.0, 4100.0)
    assert (facts.values["governor"], facts.values["turbo"], facts.values["tdp_w"]) == ("performance", True, 250.0)
    assert "frequency driver does not show" in facts.missing["cpu.frequency_driver"]


def test_a_cpu_that_tells_little_says_what_to_do_about_its_tdp(tmp_path: Path) -> None:
    facts = cpu_facts(tree(tmp_path, {"proc/cpuinfo": "processor: 0\n"}))
    assert facts.values["model"] is facts.values["tdp_w"] is None
    assert "power.modelled.tdp_w" in facts.missing["cpu.tdp_w"]
    assert "virtual machines" in facts.missing["cpu.governor"]


@pytest.mark.parametrize(
    ("file", "text", "limit"),
    [
        ("sys/fs/cgroup/memory.max", "1073741824\n", 1 << 30),
        ("sys/fs/cgroup/memory.max", "max\n", None),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n", None),
    ],
)
def test_a_containers_memory_limit(tmp_path: Path, file: str, text: str, limit: int | None) -> None:
    facts = memory_facts(tree(tmp_path, {file: text}))
    assert facts.values["limit_bytes"] == limit
    assert ("memory.limit_bytes" in facts.missing) == (limit is None)


@pytest.mark.parametrize(
    ("files", "virtual_machine", "container"),
    [
        ({}, False, False),
        ({"proc/cpuinfo": CPUINFO.replace("vme", "vme hypervisor")}, True, False),
        ({".dockerenv": ""}, False, "docker"),
        ({"run/.containerenv": ""}, False, "podman"),
        ({"proc/1/cgroup": "0::/kubepods/besteffort/pod1\n"}, False, "kubepods"),
    ],
)
def test_virtual_machines_and_containers_are_told_from_bare_metal(
    tmp_path: Path, files: dict[str, str], virtual_machine: bool, container: str | bool
) -> None:
    facts = os_facts(tree(tmp_path, {"etc/os-release": 'NAME="X"\nPRETTY_NAME="Example OS 1"\n', **files}))
    assert facts.values["distribution"] == "Example OS 1"
    assert facts.values["virtual_machine"] == virtual_machine
    assert facts.values["container"] == container


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_projects_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "--quiet")
    assert "work tree of its own" in project_facts(package).missing["project.git_commit"], (
        "not committed, so not its own"
    )
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    (tmp_path / "results.csv").write_text("beside the package")
    clean = project_facts(package).values
    assert clean["git_commit"] == git(tmp_path, "rev-parse", "HEAD")
    assert clean["git_dirty"] is False
    (package / "__init__.py").write_text("changed = True\n")
    assert project_facts(package).values["git_dirty"] is True


def test_without_git_the_reason_names_no_path(tmp_path: Path) -> None:
    facts = project_facts(tmp_path)
    assert facts.values["git_commit"] is facts.values["git_dirty"] is None
    assert str(tmp_path) not in facts.missing["project.git_commit"]
