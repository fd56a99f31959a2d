"""Choosing sources: what auto takes, and what a wrong choice says."""

from typing import ClassVar, get_args

import pytest
from fake_nvml import FakeGpu, FakeNvml

from inference_energy.acquire.power.base import PowerSource, SensorChannel, SourceError
from inference_energy.acquire.power.choose import all_states, candidates, choose
from inference_energy.acquire.power.settings import SamplerSpec
from inference_energy.acquire.power.sources.nvml.source import NvmlSource
from inference_energy.config.power import SourceName
from inference_energy.errors import InputError


class Stub(PowerSource):
    name: ClassVar[str] = "stub"

    def __init__(self, name: str, works: bool, grade: str = "counter") -> None:
        self.name = name  # type: ignore[misc]
        self.grade = grade
        self._works = works

    def find_devices(self) -> tuple[str, list[str]]:
        if not self._works:
            raise SourceError(f"because {self.name}")
        return f"because {self.name}", []

    def channels(self) -> list[SensorChannel]:
        return []


def machine(nvml: bool, rapl: bool, modelled: bool) -> list[PowerSource]:
    return [Stub("nvml", nvml), Stub("rapl", rapl), Stub("modelled", modelled, "modelled")]


@pytest.mark.parametrize(
    ("works", "taken"),
    [
        ((True, True, True), ["nvml", "rapl"]),
        ((True, False, True), ["nvml"]),
        ((False, True, True), ["rapl"]),
        ((False, False, True), ["modelled"]),
    ],
)
def test_auto_models_only_where_nothing_measures(works: tuple[bool, bool, bool], taken: list[str]) -> None:
    assert [source.name for source in choose("auto", machine(*works))] == taken


def test_auto_with_nothing_gives_every_reason() -> None:
    with pytest.raises(InputError, match=r"power\.sources") as raised:
        choose("auto", machine(False, False, False))
    for name in ("nvml", "rapl", "modelled"):
        assert f"{name}: because {name}" in str(raised.value)


def test_a_list_takes_exactly_those_each_once() -> None:
    chosen = choose(["modelled", "nvml", "modelled"], machine(True, True, True))
    assert [source.name for source in chosen] == ["modelled", "nvml"]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (["nvml", "rapl"], "power.sources names rapl.*because rapl"),
        (["wattmeter"], "power.sources names 'wattmeter'.*nvml, rapl, modelled"),
        ("nvml", r"power.sources is 'nvml'.*\[nvml\]"),
        ([], "power.sources is empty"),
    ],
)
def test_a_choice_that_cannot_be_kept_names_the_key_and_the_reason(wanted: str | list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        choose(wanted, machine(True, False, True))


def test_auto_does_not_do_without_a_gpu_that_was_named() -> None:
    missing = NvmlSource(["GPU-ffff"], FakeNvml([FakeGpu("GPU-aaaa")]))
    with pytest.raises(InputError, match=r"power\.gpus.*GPU-ffff.*GPU-aaaa"):
        choose("auto", [missing, *machine(False, True, True)[1:]])


@pytest.mark.parametrize(("stand_in", "better"), [("nvidia-smi", "nvml"), ("dcgm", "nvml"), ("pcm-power", "rapl")])
def test_auto_takes_a_stand_in_only_where_the_better_source_does_not_work(stand_in: str, better: str) -> None:
    both = [Stub(better, True), Stub(stand_in, True)]
    assert [source.name for source in choose("auto", both)] == [better]
    alone = [Stub(better, False), Stub(stand_in, True)]
    assert [source.name for source in choose("auto", alone)] == [stand_in]
    assert [source.name for source in choose([stand_in], both)] == [stand_in]


def test_named_gpus_may_be_read_by_a_stand_in() -> None:
    missing = NvmlSource(["GPU-ffff"], FakeNvml([FakeGpu("GPU-aaaa")]))
    assert [source.name for source in choose("auto", [missing, Stub("nvidia-smi", True)])] == ["nvidia-smi"]


def test_every_real_source_reports_its_state_here() -> None:
    states = all_states(candidates(SamplerSpec()))
    assert {state.name for state in states} == set(get_args(SourceName))
    assert all(state.reason for state in states)


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ({"interval_s": 0}, "power.interval_s"),
        ({"duration_s": -1}, "power.duration_s"),
        ({"intervall": 1}, "power.intervall"),
        ({"modelled": {"tdp": 65}}, "power.modelled.tdp"),
        ("{", "power"),
    ],
)
def test_a_wrong_spec_names_its_key(spec: str | dict[str, object], key: str) -> None:
    with pytest.raises(InputError, match=key):
        SamplerSpec.parse(spec)
