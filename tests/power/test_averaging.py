"""What each source says that its average power averages over."""

import json
from pathlib import Path

import pytest
from fake_nvml import FakeGpu, FakeNvml

from inference_energy.acquire.power.characterize.profile import averaging_windows_s
from inference_energy.acquire.power.choose import candidates
from inference_energy.acquire.power.power_log import compact_power_log
from inference_energy.acquire.power.sampler import Sampler
from inference_energy.acquire.power.settings import SamplerSpec
from inference_energy.acquire.power.sources.nvml.source import NvmlSource
from inference_energy.acquire.power.sources.sanity import average_window_s, usage_window_s
from inference_energy.acquire.session.measurement import sampler_spec
from inference_energy.contracts.io import read_metadata
from inference_energy.contracts.power import channel_facts

A = "GPU-aaaa1111-0000"


@pytest.mark.parametrize(
    ("capability", "usage_s", "average_s"),
    [
        ((7, 0), 0.0, None),
        ((8, 0), 0.0, None),
        ((8, 6), 1.0, 1.0),
        ((8, 9), 1.0, 1.0),
        ((9, 0), 1.0, 1.0),
        ((10, 0), 1.0, 1.0),
        (None, None, 1.0),
    ],
)
def test_the_rule_of_the_reference(
    capability: tuple[int, int] | None, usage_s: float | None, average_s: float | None
) -> None:
    assert (usage_window_s(capability), average_window_s(capability)) == (usage_s, average_s)


def about(gpu: FakeGpu, windows_s: dict[str, float] | None = None) -> dict[str, object]:
    return NvmlSource(nvml=FakeNvml([gpu]), windows_s=windows_s).channels()[0].metadata


def test_nvml_says_it_by_architecture_and_by_what_it_reads() -> None:
    assert about(FakeGpu(A)) == {"averaging_window_s": 1.0, "averaging_basis": "architecture"}
    instantaneous = {"averaging_window_s": 0.0, "averaging_basis": "architecture"}
    assert about(FakeGpu(A, capability=(8, 0), has_average=False)) == instantaneous
    assert about(FakeGpu(A, capability=(8, 0), has_fields=False)) == instantaneous
    assert about(FakeGpu(A, has_fields=False))["averaging_window_s"] == 1.0
    assert about(FakeGpu(A, capability=(8, 0))) == {"averaging_window_s": None}, "an average that it should not have"


def test_what_characterising_found_goes_before() -> None:
    found = {"averaging_window_s": 0.97, "averaging_basis": "characterisation"}
    assert about(FakeGpu(A), {A: 0.97, "GPU-b": 3.0}) == found
    assert about(FakeGpu(A, capability=(8, 0)), {A: 0.97}) == found
    assert about(FakeGpu(A, capability=(8, 0), has_fields=False), {A: 0.97})["averaging_window_s"] == 0.0
    assert about(FakeGpu(A), {"GPU-b": 3.0})["averaging_window_s"] == 1.0


def test_a_session_takes_it_from_the_profiles_that_it_cites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "results" / "characterisation"
    folder.mkdir(parents=True)
    for uuid, readings in {
        A: {"average": {"window": {"value": 1.004, "unit": "s"}}},
        "GPU-b": {"average": {"window": {"value": None, "why": "its interval is wide"}}},
        "GPU-c": {"average": {"why": "none"}},
    }.items():
        (folder / f"{uuid}.json").write_text(json.dumps({"readings": readings}))
    (folder / "GPU-d.json").write_text("{")
    assert averaging_windows_s([A, "GPU-b", "GPU-c", "GPU-d", "GPU-e"], folder) == {A: 1.004}
    monkeypatch.chdir(tmp_path)
    spec = sampler_spec({"interval_s": 0.1, "sources": "auto"}, [A])
    assert spec.averaging_windows_s == {A: 1.004}
    taking = [source for source in candidates(spec) if vars(source).get("_windows_s") == {A: 1.004}]
    assert {source.name for source in taking} == {"nvml", "nvidia-smi", "dcgm"}


def test_the_log_says_it_for_each_device_and_domain(tmp_path: Path) -> None:
    log, target = tmp_path / "power.arrows", tmp_path / "power.parquet"
    nvml = FakeNvml([FakeGpu(A), FakeGpu("GPU-b", capability=(8, 0), has_average=False, memory_w=None)])
    Sampler(SamplerSpec(interval_s=0.05, duration_s=0.2), [NvmlSource(nvml=nvml)], log).run()
    compact_power_log(log, target)
    sources = read_metadata(target)["source"]
    assert [(source["name"], source["grade"]) for source in sources] == [("nvml", "counter")]
    facts = channel_facts(sources)
    windows_s = {key[1:]: found.get("averaging_window_s", "nothing") for key, found in facts.items()}
    assert windows_s == {(A, "gpu"): 1.0, (A, "gpu_memory"): 1.0, ("GPU-b", "gpu"): 0.0}
    assert channel_facts([{"name": "nvml", "grade": "counter"}]) == channel_facts(None) == {}
