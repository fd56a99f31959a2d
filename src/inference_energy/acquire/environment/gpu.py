"""The NVIDIA GPUs: what they are and how they are set."""

from collections.abc import Callable
from typing import Any

from inference_energy.acquire.environment.facts import Facts, MissingFactError
from inference_energy.acquire.power.sources.nvml.mig import instances_of

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
    """Every GPU in NVML's order, and what is missing.

    Args:
        nvml: the module to use in place of pynvml.

    Returns:
        A list with a mapping for each GPU, or None where there is no NVML; and reasons by dotted key.
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


def cuda_facts(nvml: Any = None) -> Facts:
    """The newest CUDA version that the driver supports."""
    facts = Facts("cuda")

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


def _gpu(nvml: Any, handle: Any, prefix: str) -> Facts:
    facts = Facts(prefix)

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
        listed = instances_of(nvml, handle) or ()
        facts.add("mig_instances", lambda: [{"uuid": one.uuid, "profile": one.profile} for one in listed])
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
