"""environment.json, server_environment.json and model.json: the measured machine, its vLLM, and the served model.

In all of them a value that could not be had is null, and `missing` holds the reason under its dotted key.
"""

from typing import Any, ClassVar

from msgspec import UNSET, UnsetType

from inference_energy.contracts.documents.document import Document, Part

Facts = dict[str, str]
"""Reasons by dotted key."""


class MigInstance(Part, frozen=True, kw_only=True):
    """An instance of a partitioned GPU (MIG).

    Attributes:
        uuid: its UUID.
        profile: its MIG profile, such as `3g.40gb`.
    """

    uuid: str
    profile: str


class GpuFacts(Part, frozen=True, kw_only=True):
    """One GPU as NVML describes it.

    Attributes:
        name: product name.
        uuid: UUID.
        compute_capability: CUDA compute capability, such as `9.0`.
        streaming_multiprocessors: number of streaming multiprocessors.
        memory_bytes: GPU memory.
        driver: version of the driver.
        vbios: version of the video BIOS.
        power_limit_enforced_w: the power limit in force.
        power_limit_default_w: the power limit that the card was shipped with.
        power_limit_min_w: the lowest power limit that can be set.
        power_limit_max_w: the highest power limit that can be set.
        sm_clock_mhz: SM clock when this was read.
        sm_clock_max_mhz: highest SM clock.
        memory_clock_mhz: memory clock when this was read.
        memory_clock_max_mhz: highest memory clock.
        ecc: whether ECC is on.
        mig: whether the GPU is partitioned.
        mig_instances: instances of a partitioned GPU that are visible from here.
        persistence: whether persistence mode is on.
    """

    name: str | None
    uuid: str | None
    compute_capability: str | UnsetType | None = UNSET
    streaming_multiprocessors: int | UnsetType | None = UNSET
    memory_bytes: int | UnsetType | None = UNSET
    driver: str | UnsetType | None = UNSET
    vbios: str | UnsetType | None = UNSET
    power_limit_enforced_w: float | UnsetType | None = UNSET
    power_limit_default_w: float | UnsetType | None = UNSET
    power_limit_min_w: float | UnsetType | None = UNSET
    power_limit_max_w: float | UnsetType | None = UNSET
    sm_clock_mhz: int | UnsetType | None = UNSET
    sm_clock_max_mhz: int | UnsetType | None = UNSET
    memory_clock_mhz: int | UnsetType | None = UNSET
    memory_clock_max_mhz: int | UnsetType | None = UNSET
    ecc: bool | UnsetType | None = UNSET
    mig: bool | UnsetType | None = UNSET
    mig_instances: list[MigInstance] | UnsetType | None = UNSET
    persistence: bool | UnsetType | None = UNSET


class CpuFacts(Part, frozen=True, kw_only=True):
    """The CPU.

    Attributes:
        model: product name.
        sockets: number of sockets.
        cores: number of physical cores.
        logical: number of logical CPUs.
        base_clock_mhz: base clock.
        max_clock_mhz: highest clock.
        turbo: whether the turbo is on.
        governor: frequency governor.
        frequency_driver: driver of the frequency control.
        tdp_w: thermal design power.
    """

    model: str | None
    sockets: int | None
    cores: int | None
    logical: int | None
    base_clock_mhz: float | None
    max_clock_mhz: float | None
    turbo: bool | None
    governor: str | None
    frequency_driver: str | None
    tdp_w: float | None


class MemoryFacts(Part, frozen=True, kw_only=True):
    """Main memory.

    Attributes:
        total_bytes: physical memory.
        swap_bytes: swap space.
        limit_bytes: limit of the control group.
    """

    total_bytes: int | None
    swap_bytes: int | None
    limit_bytes: int | None


class OsFacts(Part, frozen=True, kw_only=True):
    """The operating system.

    Attributes:
        distribution: name and version of the distribution.
        kernel: release of the kernel.
        architecture: such as `x86_64`.
        virtual_machine: kind of virtual machine; true where only the hypervisor flag shows one, false on bare metal.
        container: kind of container, or false.
        clock_source: clock source of the kernel.
        power_profile: power profile of the platform.
        on_mains: whether a machine with a battery is plugged in.
    """

    distribution: str | None
    kernel: str | None
    architecture: str | None
    virtual_machine: str | bool | None
    container: str | bool | None
    clock_source: str | None
    power_profile: str | None
    on_mains: bool | None


class PythonFacts(Part, frozen=True, kw_only=True):
    """The interpreter that ran the toolkit.

    Attributes:
        version: version of the interpreter.
        implementation: such as `CPython`.
    """

    version: str | None
    implementation: str | None


class CudaFacts(Part, frozen=True, kw_only=True):
    """CUDA.

    Attributes:
        driver_supports: newest CUDA version that the driver supports.
    """

    driver_supports: str | None


class ProjectFacts(Part, frozen=True, kw_only=True):
    """The code of the toolkit.

    Attributes:
        version: version of the toolkit.
        git_commit: commit of its work tree.
        git_dirty: whether files of the package differ from that commit.
    """

    version: str | None
    git_commit: str | None
    git_dirty: bool | None


class EnvironmentDocument(Document, frozen=True, kw_only=True):
    """The machine. It holds no user's name, no path and no secret.

    Attributes:
        simulated: whether its GPUs and power are those of the virtual bench.
        gpus: every GPU in NVML's order.
        cpu: the CPU.
        memory: main memory.
        os: the operating system.
        python: the interpreter that ran the toolkit.
        cuda: CUDA.
        project: the code of the toolkit.
        missing: reason of each null.
    """

    FILE: ClassVar[str] = "environment.json"

    simulated: bool
    gpus: list[GpuFacts] | None
    cpu: CpuFacts | None
    memory: MemoryFacts | None
    os: OsFacts | None
    python: PythonFacts | None
    cuda: CudaFacts | None
    project: ProjectFacts | None
    missing: Facts


class ServerEnvironmentDocument(Document, frozen=True, kw_only=True):
    """The Python environment of the server.

    Attributes:
        kind: `cpu`, `cuda`, `interpreter`, `container`, `attach` or `simulated`.
        command: command that starts its interpreter.
        note: what to know about the choice.
        python_version: version of its interpreter.
        vllm_version: version of vLLM.
        vllm_commit: commit that vLLM was built from.
        torch_version: version of PyTorch.
        torch_cuda_version: CUDA version that PyTorch was built for.
        packages: every installed package as `name==version`.
        missing: reason of each null.
    """

    FILE: ClassVar[str] = "server_environment.json"

    kind: str
    command: list[str] | None
    note: str | None
    python_version: str | None
    vllm_version: str | None
    vllm_commit: str | None
    torch_version: str | None
    torch_cuda_version: str | None
    packages: list[str] | None
    missing: Facts


class ModelDocument(Document, frozen=True, kw_only=True):
    """The served model.

    Attributes:
        name: its key in the configuration; of an attached server the name under which it serves.
        source: `package`, `hub`, `path`, `attached`, `simulated`, ...
        path: folder of its files.
        revision: commit on the hub.
        license: SPDX-like name of the license.
        license_source: where the license is stated.
        weights: `real`, or how they were made.
        vocabulary: size of the vocabulary.
        parameters: number of parameters.
        architecture: content of the model's config.json.
        files: SHA-256 of each file by name.
        missing: reason of each null.
    """

    FILE: ClassVar[str] = "model.json"

    name: str | None
    source: str
    path: str | None
    revision: str | None
    license: str | None
    license_source: str | None
    weights: str | None
    vocabulary: int | None
    parameters: int | None
    architecture: dict[str, Any] | None
    files: dict[str, str] | None
    missing: Facts
