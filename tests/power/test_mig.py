"""A partitioned GPU: read as the whole card, and labelled so."""

import os

import pytest
from fake_nvml import FakeGpu, FakeInstance, FakeNvml

from inference_energy.acquire.gpus import cards_of, gpu_uuids
from inference_energy.acquire.machine_environment import gpu_facts
from inference_energy.acquire.power.base import SensorChannel, SourceError
from inference_energy.acquire.power.sources.nvml.processes import ProcessesChannel
from inference_energy.acquire.power.sources.nvml.source import NvmlSource
from inference_energy.acquire.server.preflight import check_gpus
from inference_energy.errors import InputError

A, B = "GPU-aaaa1111-0000", "GPU-bbbb2222-0000"
ONE, TWO, THREE = "MIG-1111aaaa-0000", "MIG-2222aaaa-0000", "MIG-3333aaaa-0000"
FOREIGN = 999_999_999


def card(*instances: FakeInstance, **changes: object) -> FakeGpu:
    ones = list(instances) or [FakeInstance(ONE), FakeInstance(TWO, "2g.20gb"), FakeInstance(THREE)]
    return FakeGpu(A, mig=True, instances=ones, **changes)


def board(channels: list[SensorChannel]) -> SensorChannel:
    return next(channel for channel in channels if (channel.domain, channel.grade) == ("gpu", "sampled"))


@pytest.fixture(autouse=True)
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize("wanted", [[ONE], ["MIG-1111"], [ONE, A], [ONE, 1]])
def test_an_instance_leads_to_its_card(wanted: list[str | int]) -> None:
    source = NvmlSource(wanted, FakeNvml([FakeGpu(B), card()]))
    assert source.probe().devices == [A]
    channels = source.channels()
    assert {channel.device for channel in channels} == {A}
    assert board(channels).read().power_average_w == 100.0


def test_the_channels_and_the_state_say_whole_card_and_name_the_instances() -> None:
    source = NvmlSource([ONE, THREE], FakeNvml([card(), FakeGpu(B)]))
    state = source.probe()
    assert "read as the whole card" in state.reason and "1g.10gb, 2g.20gb, 1g.10gb" in state.reason
    assert f"used: {ONE}, {THREE}" in state.reason
    for channel in source.channels():
        assert channel.metadata["mig"] == {
            "instances": [
                {"uuid": ONE, "profile": "1g.10gb"},
                {"uuid": TWO, "profile": "2g.20gb"},
                {"uuid": THREE, "profile": "1g.10gb"},
            ],
            "used": [ONE, THREE],
        }


def test_a_whole_gpu_says_nothing_of_instances() -> None:
    nvml = FakeNvml([card(), FakeGpu(B), FakeGpu("GPU-cccc", mig=None)])
    assert all("mig" not in channel.metadata for channel in NvmlSource([B, "GPU-cccc"], nvml).channels())


@pytest.mark.parametrize(
    ("visible", "used"),
    [(TWO, [TWO]), ("MIG-2222", [TWO]), (f"{ONE},{THREE}", [ONE, THREE]), ("0", []), (A, []), ("", [])],
)
def test_the_instances_of_the_job_are_those_it_can_see(
    visible: str, used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert board(NvmlSource(nvml=FakeNvml([card()])).channels()).metadata["mig"]["used"] == used


def test_instances_that_may_not_be_seen_are_left_out() -> None:
    nvml = FakeNvml([card(FakeInstance(ONE), FakeInstance(TWO, visible=False))])
    listed = board(NvmlSource(nvml=nvml).channels()).metadata["mig"]["instances"]
    assert [one["uuid"] for one in listed] == [ONE]
    nothing = NvmlSource(nvml=FakeNvml([card(FakeInstance(ONE, visible=False))])).probe()
    assert "none that can be seen from here" in nothing.reason


@pytest.mark.parametrize(("wanted", "said"), [("MIG-9", f"no MIG instance.*{ONE}"), ("MIG-", "3 MIG instances")])
def test_a_wrong_instance_says_what_there_is(wanted: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        NvmlSource([wanted], FakeNvml([card()])).channels()


def watching(gpu: FakeGpu) -> ProcessesChannel:
    channels = NvmlSource([ONE], FakeNvml([gpu]), server_pid=os.getpid).channels()
    (found,) = [channel for channel in channels if isinstance(channel, ProcessesChannel)]
    return found


def test_processes_of_the_other_instances_are_foreign_without_the_cards_own_list() -> None:
    gpu = card(FakeInstance(ONE, pids=[os.getpid()]), FakeInstance(TWO, pids=[FOREIGN]), pids=None)
    channel = watching(gpu)
    channel.read_many()
    notes = channel.diagnostics()
    assert [each["pid"] for each in notes["foreign_processes"]] == [FOREIGN]
    assert notes["unlisted_instances"] == []


def test_an_instance_whose_processes_may_not_be_seen_is_named() -> None:
    channel = watching(card(FakeInstance(ONE, pids=[os.getpid()]), FakeInstance(TWO, pids=None), pids=None))
    channel.read_many()
    notes = channel.diagnostics()
    assert (notes["foreign_processes"], notes["unlisted_instances"]) == ([], [TWO])


def test_the_cards_list_counts_where_an_instances_is_refused() -> None:
    gpu = card(FakeInstance(ONE, pids=[os.getpid()]), FakeInstance(TWO, pids=None), pids=[os.getpid(), FOREIGN])
    channel = watching(gpu)
    channel.read_many()
    assert [each["pid"] for each in channel.diagnostics()["foreign_processes"]] == [FOREIGN]


def test_a_server_gets_its_instance_and_locks_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml([FakeGpu(B), card()])
    monkeypatch.setitem(__import__("sys").modules, "pynvml", nvml)
    assert gpu_uuids(["MIG-2222", 0, "GPU-aaaa"], "s") == [TWO, B, A]
    assert cards_of([ONE, TWO, B]) == [A, B]
    assert cards_of(["GPU-of-another-world"]) == ["GPU-of-another-world"], "nothing is asked without an instance"
    for wanted, said in ((["MIG-9"], "servers.s.gpus: no MIG instance"), ([2], "there is no GPU 2"), ([-1], "no GPU")):
        with pytest.raises(InputError, match=said):
            gpu_uuids(wanted, "s")
    with pytest.raises(InputError, match=r"server\.gpus"):
        cards_of(["MIG-gone"])
    assert nvml.sessions == 0


def test_a_launch_is_refused_while_another_instance_is_in_use() -> None:
    gpu = card(FakeInstance(ONE), FakeInstance(TWO, pids=[FOREIGN]), pids=[FOREIGN])
    with pytest.raises(InputError, match=f"{FOREIGN}.*on {A}"):
        check_gpus([ONE], nvml=FakeNvml([gpu]), release_limit_s=0.0)
    check_gpus([ONE], nvml=FakeNvml([card(pids=[])]), release_limit_s=0.0)


def test_the_environment_records_mode_and_instances() -> None:
    gpus, missing = gpu_facts(FakeNvml([card(), FakeGpu(B)]))
    assert gpus is not None and not any("mig" in key for key in missing)
    assert (gpus[0]["mig"], gpus[1]["mig"]) == (True, False)
    assert gpus[0]["mig_instances"][1] == {"uuid": TWO, "profile": "2g.20gb"}
    assert "mig_instances" not in gpus[1]
