"""The virtual NVML: numbers as pynvml has them, and what its functions say of a node."""

import inspect
import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import pynvml as real
import pytest

from inference_energy.bench.live.node import VARIABLE, NodeFolder
from inference_energy.bench.live.nvml import driver
from inference_energy.bench.live.nvml.session import _State
from inference_energy.bench.live.power_trace_file import TraceWriter
from inference_energy.bench.sensors.nvml import SLOWED_CLOCK_SHARE
from inference_energy.bench.shims import pynvml as virtual
from inference_energy.errors import InputError

pytestmark = pytest.mark.slow

Make = Callable[..., NodeFolder]
QUIET = {"noise_std_w": 0.0, "counter_latency_median_s": 0.0, "counter_latency_p99_s": 0.0}
"""Sensors that only average and round."""

FUNCTIONS = [name for name in vars(virtual) if name.startswith("nvml") and callable(getattr(virtual, name))]
CONSTANTS = [name for name in vars(virtual) if isinstance(getattr(virtual, name), int) and name.lower()[:4] == "nvml"]


@pytest.fixture(autouse=True)
def closed() -> Any:
    """Each test begins and ends without a session."""
    yield
    while _State.sessions:
        virtual.nvmlShutdown()


def first_gpu() -> Any:
    virtual.nvmlInit()
    return virtual.nvmlDeviceGetHandleByIndex(0)


@pytest.mark.parametrize("name", CONSTANTS)
def test_numbers_are_those_of_pynvml(name: str) -> None:
    assert getattr(virtual, name) == getattr(real, name)


def test_every_kind_of_name_was_compared() -> None:
    for kind in ("NVML_ERROR_", "NVML_FI_DEV_POWER_", "NVML_CLOCK_", "nvmlClocksEventReason", "NVML_VALUE_TYPE_"):
        assert sum(name.startswith(kind) for name in CONSTANTS) >= 4


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_take_what_those_of_pynvml_take(name: str) -> None:
    mine, theirs = (inspect.signature(getattr(module, name)).parameters for module in (virtual, real))
    assert len(mine) == len(theirs)
    required = [sum(p.default is inspect.Parameter.empty for p in parameters.values()) for parameters in (mine, theirs)]
    assert required[0] == required[1]


@pytest.mark.parametrize("name", [name for name in CONSTANTS if name.startswith("NVML_ERROR_")])
def test_errors_are_those_of_pynvml(name: str) -> None:
    code = getattr(real, name)
    mine, theirs = virtual.NVMLError(code), real.NVMLError(code)
    assert (type(mine).__name__, mine.value) == (type(theirs).__name__, theirs.value)
    kind = getattr(virtual, type(theirs).__name__)
    assert kind is type(mine) is virtual.nvmlExceptionClass(code)
    assert kind().value == code
    assert isinstance(mine, virtual.NVMLError)


@pytest.mark.parametrize("code", [1, 2, 3, 6, 12, 999])
def test_errors_speak_as_pynvml_does(code: int) -> None:
    assert str(virtual.NVMLError(code)) == str(real.NVMLError(code)) == virtual.nvmlErrorString(code)


def test_structures_are_laid_out_as_pynvmls() -> None:
    for name in ("c_nvmlFieldValue_t", "c_nvmlSample_t", "c_nvmlValue_t"):
        mine, theirs = ([field[0] for field in getattr(module, name)._fields_] for module in (virtual, real))
        assert mine == theirs


def test_without_the_variable_there_is_no_library(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(virtual.NVMLError_LibraryNotFound):
        virtual.nvmlInit()
    with pytest.raises(virtual.NVMLError_Uninitialized):
        virtual.nvmlDeviceGetCount()


def test_a_folder_without_a_node_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere")
    with pytest.raises(InputError, match=rf"{VARIABLE}: /nowhere/node\.json"):
        virtual.nvmlInit()


def test_sessions_are_counted(here: Make) -> None:
    here()
    virtual.nvmlInit()
    virtual.nvmlInit()
    virtual.nvmlShutdown()
    assert virtual.nvmlDeviceGetCount() == 1
    virtual.nvmlShutdown()
    for call in (virtual.nvmlShutdown, virtual.nvmlDeviceGetCount):
        with pytest.raises(virtual.NVMLError_Uninitialized):
            call()


def test_gpus_are_found_by_each_of_their_names(here: Make) -> None:
    here(tensor_parallel=4)
    virtual.nvmlInit()
    handles = [virtual.nvmlDeviceGetHandleByIndex(index) for index in range(virtual.nvmlDeviceGetCount())]
    assert len({virtual.nvmlDeviceGetUUID(handle) for handle in handles}) == 4
    for index, handle in enumerate(handles):
        uuid, bus = virtual.nvmlDeviceGetUUID(handle), virtual.nvmlDeviceGetPciInfo(handle).busId
        assert virtual.nvmlDeviceGetHandleByUUID(uuid) is virtual.nvmlDeviceGetHandleByUUID(uuid.encode()) is handle
        assert virtual.nvmlDeviceGetHandleByPciBusId(bus) is handle
        assert virtual.nvmlDeviceGetIndex(handle) == index
        assert "simulated" in virtual.nvmlDeviceGetName(handle)
    for call, wrong in (
        (virtual.nvmlDeviceGetHandleByIndex, 4),
        (virtual.nvmlDeviceGetHandleByIndex, -1),
        (virtual.nvmlDeviceGetUUID, "no handle"),
    ):
        with pytest.raises(virtual.NVMLError_InvalidArgument):
            call(wrong)
    with pytest.raises(virtual.NVMLError_NotFound):
        virtual.nvmlDeviceGetHandleByUUID("GPU-0")


def test_power_and_counter_follow_the_trace(here: Make) -> None:
    made = here(sensors={"nvml": QUIET})
    writer = TraceWriter(made.traces, os.getpid())
    gpu = first_gpu()
    writer.append(made.origin_ns, 412.5, 150.0, 60.4, 4, True)
    time.sleep(1.3)  # until the boxcar of 1 s shows nothing else
    values = virtual.nvmlDeviceGetFieldValues(
        gpu, [virtual.NVML_FI_DEV_POWER_AVERAGE, virtual.NVML_FI_DEV_POWER_INSTANT, (186, 2), (185, 2), 190, 4711]
    )
    assert [value.nvmlReturn for value in values] == [0, 0, 3, 0, 0, 3]
    assert (values[0].value.uiVal, values[1].value.uiVal, values[4].value.uiVal) == (412_500, 412_500, 700_000)
    assert 35_000 < values[3].value.uiVal < 412_500
    assert abs(values[0].timestamp - time.time_ns() / 1e3) < 5e6
    assert virtual.nvmlDeviceGetPowerUsage(gpu) == 412_500
    assert virtual.nvmlDeviceGetUtilizationRates(gpu).gpu == 100
    assert virtual.nvmlDeviceGetTemperature(gpu, virtual.NVML_TEMPERATURE_GPU) == 60
    assert virtual.nvmlDeviceGetCurrentClocksEventReasons(gpu) == virtual.nvmlClocksEventReasonSwPowerCap
    assert virtual.nvmlDeviceGetClockInfo(gpu, virtual.NVML_CLOCK_SM) == round(
        SLOWED_CLOCK_SHARE * made.node.device.sm_clock_mhz
    ), "under its power cap"
    asked_s, first_mj, told_s = time.monotonic(), virtual.nvmlDeviceGetTotalEnergyConsumption(gpu), time.monotonic()
    time.sleep(1.0)
    asked_again_s = time.monotonic()
    (field,) = virtual.nvmlDeviceGetFieldValues(gpu, [virtual.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION])
    told_again_s = time.monotonic()
    assert field.valueType == virtual.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
    between_s = (field.value.ullVal - first_mj) / 1e3 / 412.5
    assert asked_again_s - told_s - 0.11 < between_s < told_again_s - asked_s + 0.11, "each is up to 0.1 s old"


def test_the_counters_call_takes_its_time_and_is_read_in_its_middle(
    here: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(sensors={"nvml": QUIET | {"counter_latency_median_s": 0.02, "counter_latency_p99_s": 0.02}})
    gpu = first_gpu()
    naps: list[float] = []
    monkeypatch.setattr(driver.time, "sleep", naps.append)
    virtual.nvmlDeviceGetTotalEnergyConsumption(gpu)
    assert naps == pytest.approx([0.01, 0.01])


def test_a_card_says_what_it_lacks(here: Make) -> None:
    here(sensors={"nvml": {"has_counter": False, "has_instant": False}})
    gpu = first_gpu()
    with pytest.raises(virtual.NVMLError_NotSupported):
        virtual.nvmlDeviceGetTotalEnergyConsumption(gpu)
    values = virtual.nvmlDeviceGetFieldValues(gpu, [83, 185, 186])
    assert [value.nvmlReturn for value in values] == [3, 0, 3]


def test_the_ring_holds_119_samples_20_ms_apart(here: Make) -> None:
    made = here()
    gpu = first_gpu()
    kind, samples = virtual.nvmlDeviceGetSamples(gpu, virtual.NVML_TOTAL_POWER_SAMPLES, 0)
    times_us = [sample.timeStamp for sample in samples]
    assert kind == virtual.NVML_VALUE_TYPE_UNSIGNED_INT
    assert len(samples) == 119
    assert {later - earlier for earlier, later in itertools.pairwise(times_us)} == {20_000}
    assert {sample.sampleValue.uiVal for sample in samples} == {round(made.node.device.cold_idle_w * 1000)}
    _, newer = virtual.nvmlDeviceGetSamples(gpu, virtual.NVML_TOTAL_POWER_SAMPLES, times_us[-3])
    assert [sample.timeStamp for sample in newer[:2]] == times_us[-2:]
    with pytest.raises(virtual.NVMLError_NotFound):
        virtual.nvmlDeviceGetSamples(gpu, virtual.NVML_TOTAL_POWER_SAMPLES, times_us[-1] + 10**9)
    with pytest.raises(virtual.NVMLError_NotSupported):
        virtual.nvmlDeviceGetSamples(gpu, virtual.NVML_GPU_UTILIZATION_SAMPLES, 0)


def test_sensor_errors_come_as_nvml_errors(here: Make) -> None:
    here(tensor_parallel=2, faults={"sensors": [{"kind": "error", "device": 1}]})
    virtual.nvmlInit()
    time.sleep(0.02)  # sensors look back a little, and the faults begin with the node
    good, bad = (virtual.nvmlDeviceGetHandleByIndex(index) for index in range(2))
    for call in (
        virtual.nvmlDeviceGetPowerUsage,
        virtual.nvmlDeviceGetTotalEnergyConsumption,
        lambda gpu: virtual.nvmlDeviceGetSamples(gpu, virtual.NVML_TOTAL_POWER_SAMPLES, 0),
    ):
        assert call(good)
        with pytest.raises(virtual.NVMLError_Unknown):
            call(bad)
    values = virtual.nvmlDeviceGetFieldValues(bad, [185, 186])
    assert [value.nvmlReturn for value in values] == [virtual.NVML_ERROR_UNKNOWN] * 2


def test_a_power_limit_shows_as_set_and_as_it_came(here: Make) -> None:
    here(power_limit_w=450.0)
    gpu = first_gpu()
    assert virtual.nvmlDeviceGetEnforcedPowerLimit(gpu) == virtual.nvmlDeviceGetPowerManagementLimit(gpu) == 450_000
    assert virtual.nvmlDeviceGetPowerManagementDefaultLimit(gpu) == 700_000
    assert virtual.nvmlDeviceGetPowerManagementLimitConstraints(gpu) == [200_000, 700_000]


def test_the_server_and_tenants_are_listed_while_they_are_there(here: Make) -> None:
    tenants = [
        {"device": 1, "power_w": 50, "start_s": 0, "end_s": 1e6, "pid": 1234567},
        {"device": 1, "power_w": 50, "start_s": 1e5, "end_s": 1e6, "pid": 7654321},
    ]
    made = here(tensor_parallel=2, faults={"tenants": tenants})
    virtual.nvmlInit()
    gpus = [virtual.nvmlDeviceGetHandleByIndex(index) for index in range(2)]

    def pids() -> list[list[int]]:
        return [[process.pid for process in virtual.nvmlDeviceGetComputeRunningProcesses(gpu)] for gpu in gpus]

    assert pids() == [[], [1234567]]
    assert virtual.nvmlDeviceGetClockInfo(gpus[0], virtual.NVML_CLOCK_SM) == made.node.device.idle_clock_mhz
    before = virtual.nvmlDeviceGetMemoryInfo(gpus[0])
    writer = TraceWriter(made.traces, os.getpid())
    writer.append(time.monotonic_ns(), 120.0, 95.0, 40.0, 1, False)
    assert pids() == [[os.getpid()], [os.getpid(), 1234567]]
    after = virtual.nvmlDeviceGetMemoryInfo(gpus[0])
    assert before.used < 2**30 and after.used == round(made.node.device.memory_bytes * 0.9)
    assert after.used + after.free == after.total
    assert virtual.nvmlSystemGetProcessName(1234567) == "tenant (simulated)"
    assert virtual.nvmlSystemGetProcessName(os.getpid()) == "vllm (simulated)"
    with pytest.raises(virtual.NVMLError_NotFound):
        virtual.nvmlSystemGetProcessName(7654321)
    writer.close()
    assert pids() == [[], [1234567]]


def test_a_tenants_power_shows_on_its_gpu_alone(here: Make) -> None:
    made = here(
        tensor_parallel=2,
        sensors={"nvml": QUIET},
        faults={"tenants": [{"device": 1, "power_w": 200, "start_s": 0, "end_s": 1e6}]},
    )
    virtual.nvmlInit()
    own, shared = (virtual.nvmlDeviceGetHandleByIndex(index) for index in range(2))
    time.sleep(1.2)
    assert virtual.nvmlDeviceGetPowerUsage(own) == round(1e3 * made.node.device.cold_idle_w)
    assert virtual.nvmlDeviceGetPowerUsage(shared) == round(1e3 * (made.node.device.cold_idle_w + 200))


def test_another_node_is_another_machine(here: Make, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from inference_energy.bench.config import Node
    from inference_energy.bench.live.node import make_node

    here()
    old = first_gpu()
    other = make_node(tmp_path / "other", Node(tensor_parallel=2, seed=5))
    monkeypatch.setenv(VARIABLE, str(other.folder))
    virtual.nvmlInit()
    assert virtual.nvmlDeviceGetCount() == 2
    with pytest.raises(virtual.NVMLError_InvalidArgument):
        virtual.nvmlDeviceGetUUID(old)
