"""`estimate` as a user types it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from inference_energy.cli.main import app
from inference_energy.errors import InputError

IDS = ["tdp", "tdp70", "flops", "roofline", "ecologits", "hungry", "scale", "lookup", "energy-roofline"]
LOAD = ("--batch", "64", "--input", "512", "--output", "256")


def run(*words: str, fails: bool = False) -> Result:
    result = CliRunner().invoke(app, ["estimate", *words], env={"COLUMNS": "200"})
    if not fails:
        assert result.exit_code == 0, result.output or result.exception
    return result


def as_json(*words: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(run(*words, "--json").output)
    return content


def refused(*words: str) -> str:
    result = run(*words, fails=True)
    assert isinstance(result.exception, InputError), result.output
    return str(result.exception)


def rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in found["estimates"]}


def test_all_estimators_side_by_side() -> None:
    found = as_json("--model-config", "Llama-3.1-8B", "--gpu", "H100-SXM", *LOAD, "--throughput", "6000")
    assert list(rows(found)) == IDS
    assert found["grade"] == "modelled"
    for row in found["estimates"]:
        assert row["unavailable"] is None
        assert row["assumptions"]
        assert row["leaves_out"]
        low, value, high = row["low"], row["energy_per_output_token_j"], row["high"]
        assert (value is None) == (row["id"] == "scale")
        assert (low is None) == (high is None)
        if low is not None and value is not None:
            assert low < value < high
    measured_like = rows(found)["energy-roofline"]
    assert measured_like["energy_per_request_j"]["point"] == pytest.approx(
        256 * measured_like["energy_per_output_token_j"]
    )


def test_what_is_not_given_is_not_made_up() -> None:
    found = rows(as_json("--model-config", "Llama-3.1-8B", "--gpu", "H100-SXM"))
    for name in ("tdp", "tdp70", "roofline", "hungry", "scale", "energy-roofline"):
        assert found[name]["energy_per_output_token_j"] is None
        assert found[name]["low"] is None
        assert "--" in found[name]["unavailable"]
    assert found["lookup"]["low"] < found["lookup"]["high"]
    assert found["flops"]["energy_per_output_token_j"] > 0


def test_another_gpu_has_no_calibration_and_no_rows() -> None:
    found = rows(as_json("--model-config", "Qwen3-8B", "--gpu", "MI300X", *LOAD, "--throughput", "6000"))
    for name in ("flops", "hungry", "lookup", "energy-roofline"):
        assert found[name]["unavailable"], name
    assert found["tdp"]["energy_per_output_token_j"] == pytest.approx(750 / 6000)


def test_the_table_says_modelled_and_why_something_is_missing() -> None:
    text = run("--model-config", "Llama-3.1-8B", "--gpu", "H100-SXM", *LOAD).output
    assert "modelled" in text
    assert "unavailable: tdp, tdp70, hungry" in text
    assert "leaves out" in text
    for name in IDS:
        assert name in text


def test_a_calibration_with_prompts_tells_them_apart(tmp_path: Path) -> None:
    words = ("--model-config", "Llama-3.1-8B", "--gpu", "H100-SXM", *LOAD)
    plain, apart = as_json(*words), as_json(*words, "--calibration", "h100-windows")
    assert plain["prefill"]["calibrated_j"] is None
    assert 2 < apart["prefill"]["calibrated_j"] < 20
    low, high = apart["prefill"]["calibrated_interval_j"]
    assert low < apart["prefill"]["calibrated_j"] < high


def test_precision_and_gpus_count() -> None:
    words = ("--model-config", "Llama-3.1-70B", "--gpu", "H100-SXM", *LOAD)
    plain = as_json(*words, "--tp", "4")
    small = as_json(*words, "--tp", "2", "--precision", "int4", "--kv-precision", "fp8")
    assert rows(small)["roofline"]["energy_per_output_token_j"] < rows(plain)["roofline"]["energy_per_output_token_j"]
    assert small["model"]["weights"] == "int4"
    assert small["model"]["kv_bytes_per_token"] == plain["model"]["kv_bytes_per_token"] / 2


def test_a_model_that_does_not_fit_is_noted() -> None:
    words = ("--model-config", "Llama-3.1-70B", "--gpu", "H100-SXM", *LOAD)
    assert any("does not fit" in note for note in as_json(*words)["notes"])
    assert not any("does not fit" in note for note in as_json(*words, "--tp", "4")["notes"])


def test_a_baseline_of_ones_own(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("model,gpu,batch,energy_per_output_token_j,label\nQwen3-8B,H100-SXM,64,0.5,mine\n")
    words = ("--model-config", "Qwen3-8B", "--gpu", "H100-SXM", *LOAD, "--baseline", str(table))
    found = rows(as_json(*words))["scale"]
    assert found["low"] < 0.5 < found["high"]
    assert any("mine" in text for text in found["assumptions"])
    table.write_text(table.read_text() + "Qwen3-8B,H100-SXM,32,0.5,mine\n")
    assert "not 2" in refused(*words)


def test_fit_and_use_a_table(tmp_path: Path) -> None:
    table, target = tmp_path / "mine.csv", tmp_path / "mine.json"
    lines = ["model,gpu,batch,context_tokens,energy_per_output_token_j"]
    lines += [
        f"{name},A100-80-SXM,{batch},500,{size / batch + size / 50 + 0.02:g}"
        for name, size in (("Qwen3-8B", 5.0), ("Qwen3-14B", 9.0), ("Qwen3-32B", 20.0))
        for batch in (4, 16, 64)
    ]
    table.write_text("\n".join(lines) + "\n")
    said = run("fit", str(table), "--output", str(target)).output
    assert "models left out" in said
    words = ("--model-config", "Qwen3-14B", "--gpu", "A100-80-SXM", *LOAD, "--calibration", str(target))
    found = rows(as_json(*words))["energy-roofline"]
    assert found["energy_per_output_token_j"] == pytest.approx(9 / 64 + 9 / 50 + 0.02, rel=0.15)
    assert "calibration mine" in " ".join(found["assumptions"])
    other = rows(as_json(*words[:2], "--gpu", "H100-SXM", *words[4:]))["energy-roofline"]
    assert "A100-80-SXM" in other["unavailable"]


def test_fit_without_output_prints_the_file() -> None:
    assert json.loads(run("fit", "--shipped", "h100-windows").output)["name"] == "h100-windows"


def test_score_and_lists() -> None:
    assert "energy-roofline" in run("score").output
    assert "DeepSeek-V3" in run("models").output
    assert "MI300X" in run("gpus").output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "--model-config"),
        (("--model-config", "Qwen3-8B"), "--gpu"),
        (("--model-config", "none", "--gpu", "H100-SXM"), "--model-config: none: neither"),
        (
            ("--model-config", "Qwen3-8B", "--gpu", "H1000"),
            "--gpu: H1000 is not in the table of data sheets; the nearest are A100-80-SXM, H100-PCIe",
        ),
        (("--model-config", "Qwen3-8B", "--gpu", "H100-SXM", "--batch", "0"), "--batch: 0.0: write a number above 0"),
        (
            ("--model-config", "Qwen3-8B", "--gpu", "H100-SXM", "--input", "-1"),
            "--input: -1.0: write a number, 0 or more",
        ),
        (
            ("--model-config", "Qwen3-8B", "--gpu", "H100-SXM", "--precision", "fp6"),
            "--precision: write one of bf16, fp8",
        ),
        (("--model-config", "Qwen3-8B", "--gpu", "H100-SXM", "--kv-precision", "fp6"), "--kv-precision: write one of"),
        (
            ("--model-config", "Qwen3-8B", "--gpu", "H100-SXM", "--baseline", "none.csv"),
            "--baseline: none.csv: cannot be read: no such file",
        ),
        (
            ("--model-config", "Qwen3-8B", "--gpu", "H100-SXM", "--calibration", "none.json"),
            "--calibration: none.json: cannot be read: no such file",
        ),
        (("fit",), "--shipped"),
        (("fit", "--shipped", "none"), "h100-windows"),
    ],
)
def test_wrong_use_is_answered_with_what_to_write(words: tuple[str, ...], expected: str) -> None:
    assert expected in refused(*words)


def test_a_model_that_does_not_fit_has_no_estimate() -> None:
    words = ("--model-config", "Llama-3.1-70B", *LOAD, "--throughput", "900")
    found = as_json(*words, "--gpu", "H100-SXM")
    for row in found["estimates"]:
        assert row["energy_per_output_token_j"] is row["low"] is row["energy_per_request_j"]["point"] is None
        assert row["unavailable"].startswith("does not fit: weights take 141 GB and the cache 13.4 GB, 193 %")
        assert "--tp" in row["unavailable"]
    assert found["prefill"]["data_sheet_j"] == [None, None]
    text = run(*words, "--gpu", "H100-SXM").output
    assert "70.55 billion parameters" in text
    assert "does not fit" in text
    fits = as_json(*words, "--gpu", "H100-SXM", "--tp", "4")
    assert not any("does not fit" in note for note in fits["notes"])
    assert rows(fits)["tdp"]["energy_per_output_token_j"] == pytest.approx(4 * 700 / 900)


@pytest.mark.parametrize(
    ("words", "fits"),
    [
        (("--batch", "64", "--input", "512", "--output", "256"), True),
        (("--batch", "64", "--input", "100000", "--output", "256"), False),
        (("--batch", "64", "--input", "30000", "--output", "256", "--kv-precision", "fp8"), False),
        (("--batch", "5000", "--input", "512", "--output", "256"), False),
    ],
)
def test_the_cache_counts_as_memory(words: tuple[str, ...], fits: bool) -> None:
    found = as_json("--model-config", "Llama-3.1-8B", "--gpu", "H100-SXM", *words)
    assert any("does not fit" in note for note in found["notes"]) is not fits
    assert (rows(found)["roofline"]["energy_per_output_token_j"] is not None) is fits


def test_a_throughput_beyond_the_roofline_is_withheld() -> None:
    """Llama-3.1-8B at batch 64: 15.0 GB of weights and 64 caches of 640 tokens, 131 kB each, at 3350 GB/s."""
    words = ("--model-config", "Llama-3.1-8B", "--gpu", "H100-SXM")
    step_s = (2 * (8_030_261_248 - 128_256 * 4096) + 64 * 640 * 131_072) / 3350e9
    for load, most in ((LOAD, 64 / step_s), ((), 1978.9e12 / (2 * (8_030_261_248 - 128_256 * 4096)))):
        possible = rows(as_json(*words, *load, "--throughput", str(0.99 * most)))
        beyond = as_json(*words, *load, "--throughput", str(1.01 * most))
        assert possible["tdp"]["energy_per_output_token_j"] is not None
        for name in ("tdp", "tdp70", "hungry"):
            assert rows(beyond)[name]["energy_per_output_token_j"] is None
            assert "beyond the roofline" in rows(beyond)[name]["unavailable"]
        assert rows(beyond)["flops"]["energy_per_output_token_j"] is not None
        assert any("beyond the roofline" in note for note in beyond["notes"])


def test_an_empty_prompt_has_no_prefill() -> None:
    words = ("--model-config", "Qwen3-8B", "--gpu", "H100-SXM", "--batch", "8", "--input", "0", "--output", "100")
    found = as_json(*words, "--calibration", "h100-windows")
    assert found["prefill"]["data_sheet_j"] == [0, 0]
    assert found["prefill"]["calibrated_j"] == 0
    assert rows(found)["energy-roofline"]["energy_per_output_token_j"] > 0
