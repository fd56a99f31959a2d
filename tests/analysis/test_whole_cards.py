"""What is said where the power is of more than what was used: partitioned GPUs and superchips."""

from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from inference_energy.analysis.power_series import boundary, boundary_note, series_from_log, summed
from inference_energy.analysis.sensor_checks import other_process_reasons
from inference_energy.contracts.documents.session import PowerLogRecord
from inference_energy.contracts.power import GPU_MODULE, SCHEMA
from inference_energy.contracts.reason_codes import CODES

CARD, ONE, TWO = "GPU-a", "MIG-1", "MIG-2"
S = 1_000_000_000


def recorded(
    used: list[str], channel: dict[str, Any] | None = None, instances: tuple[str, ...] = (ONE, TWO)
) -> PowerLogRecord:
    mig = {"instances": [{"uuid": uuid, "profile": "3g.40gb"} for uuid in instances], "used": used}
    facts = [{"device": CARD, "domain": domain, "mig": mig} for domain in ("gpu", "gpu_memory")]
    content = {
        "sources": [{"name": "nvml", "grade": "counter", "channels": facts}],
        "channels": [{"source": "nvml", "device": CARD, "domain": "gpu", **(channel or {})}],
    }
    return msgspec.convert(content, PowerLogRecord)


@pytest.mark.parametrize(
    ("power", "said", "unsaid"),
    [
        (
            recorded([ONE], {"unlisted_instances": []}),
            "2 instance(s) (3g.40gb, 3g.40gb); the job was given MIG-1.",
            "told",
        ),
        (
            recorded([ONE], {"unlisted_instances": [TWO]}),
            "Whether others computed on MIG-2 cannot be told.",
            "which the",
        ),
        (recorded([]), "which the job used is not known. Whether others computed on it cannot be told.", "given"),
        (recorded([], {"unlisted_instances": []}, ()), "none that can be seen from here", "given"),
    ],
)
def test_a_partitioned_card_is_noted_once(power: PowerLogRecord, said: str, unsaid: str) -> None:
    (found,) = other_process_reasons(power, 0, 60 * S)
    assert found.code == "mig_card" and CODES[found.code].effect == "note"
    assert f"{CARD} is partitioned (MIG): the energy is that of the whole card" in found.detail
    assert said in found.detail and unsaid not in found.detail


def test_a_process_on_another_instance_invalidates() -> None:
    process = {"pid": 7, "name": "python", "first_seen_ns": 5 * S, "last_seen_ns": 9 * S}
    power = recorded([ONE], {"unlisted_instances": [], "foreign_processes": [process]})
    assert {found.code for found in other_process_reasons(power, 0, 60 * S)} == {"mig_card", "foreign_process"}
    assert CODES["foreign_process"].effect == "invalidates"


def test_a_log_without_partitions_says_nothing() -> None:
    assert (
        other_process_reasons(PowerLogRecord(sources=[{"name": "nvml", "grade": "counter"}], channels=[]), 0, S) == []
    )


def rows(source: str, device: str, domain: str) -> pd.DataFrame:
    times_ns = (np.arange(0, 20, 0.1) * S).astype(np.int64)
    known = {"timestamp_ns": times_ns, "source": source, "device": device, "domain": domain, "power_instant_w": 100.0}
    return pd.DataFrame(known).reindex(columns=SCHEMA.names)


def test_a_superchips_module_is_logged_named_and_never_added() -> None:
    sources = [{"name": "nvml", "grade": "counter"}, {"name": "rapl", "grade": "counter"}]
    parts = [rows("nvml", CARD, "gpu"), rows("nvml", CARD, GPU_MODULE)]
    found = series_from_log(pd.concat(parts), sources, "instant")
    assert [channel.domain for channel in summed(found)] == ["gpu"]
    assert boundary(summed(found)) == "gpu"
    note = boundary_note(summed(found), found)
    assert note is not None and "gpu_module, which was logged and not added" in note
    assert "Grace CPU and the memory of both" in note and "No counter of the CPU was added" in note
    with_cpu = series_from_log(pd.concat([*parts, rows("rapl", "package-0", "cpu_package")]), sources, "instant")
    counted = boundary_note(summed(with_cpu), with_cpu)
    assert counted is not None and "gpu_module" in counted and "No counter of the CPU" not in counted
    plain = series_from_log(parts[0], sources, "instant")
    assert "gpu_module" not in (boundary_note(summed(plain), plain) or "")


def test_a_module_alone_makes_no_sum() -> None:
    alone = series_from_log(rows("nvml", CARD, GPU_MODULE), [{"name": "nvml", "grade": "counter"}], "instant")
    assert summed(alone) == []
