"""GH200 and its like: the module's power beside the GPU's, and never added to it."""

import pynvml
from fake_nvml import FakeGpu, FakeNvml

from inference_energy.acquire.power.polling import Poller
from inference_energy.acquire.power.sources.nvml import power
from inference_energy.acquire.power.sources.nvml.source import NvmlSource
from inference_energy.contracts.power import DOMAINS, GPU_MODULE, summed_keys

A = "GPU-aaaa1111-0000"


def test_the_scopes_have_nvmls_numbers() -> None:
    numbers = pynvml.NVML_POWER_SCOPE_GPU, pynvml.NVML_POWER_SCOPE_MODULE, pynvml.NVML_POWER_SCOPE_MEMORY
    assert numbers == (power.SCOPE_GPU, power.SCOPE_MODULE, power.SCOPE_MEMORY)


def test_the_modules_power_and_the_counter_are_a_domain_of_their_own() -> None:
    source = NvmlSource(nvml=FakeNvml([FakeGpu(A, name="NVIDIA GH200 480GB", module_w=320.0)]))
    assert "read as gpu_module" in source.probe().reason
    channels = source.channels()
    assert [(channel.domain, channel.grade) for channel in channels] == [
        ("gpu", "sampled"),
        (GPU_MODULE, "counter"),
        ("gpu_memory", "sampled"),
        (GPU_MODULE, "sampled"),
    ]
    assert GPU_MODULE in DOMAINS
    own, counter, _, module = [channel.read() for channel in channels]
    assert (own.power_average_w, own.power_instant_w) == (100.0, 110.0)
    assert (module.power_average_w, module.power_instant_w) == (320.0, 320.0)
    assert counter.energy_counter_j is not None
    assert channels[3].metadata["averaging_window_s"] == 1.0
    keys = summed_keys((("nvml", channel.device, channel.domain), channel.grade) for channel in channels)
    assert keys == {("nvml", A, "gpu")}


def test_without_power_of_the_gpu_alone_the_older_call_is_not_taken_for_it() -> None:
    gpu = FakeGpu(A, module_w=320.0, has_average=False, has_instant=False)
    assert {channel.domain for channel in NvmlSource(nvml=FakeNvml([gpu])).channels()} == {GPU_MODULE, "gpu_memory"}


def test_any_other_gpu_has_none_and_its_counter_is_its_own() -> None:
    source = NvmlSource(nvml=FakeNvml([FakeGpu(A)]))
    assert "gpu_module" not in source.probe().reason
    assert GPU_MODULE not in {channel.domain for channel in source.channels()}


def test_two_gpus_of_a_module_do_not_double_it_in_the_progress() -> None:
    nvml = FakeNvml([FakeGpu(A, module_w=900.0), FakeGpu("GPU-bbbb", module_w=900.0)])
    poller = Poller(NvmlSource(nvml=nvml).channels(), 0.1)
    for polled in poller.polled:
        polled.poll()
    poller.collect()
    latest = poller.latest_power_w()
    assert latest["gpu"] == 200.0
    assert GPU_MODULE not in latest
