"""A configuration file is validated, or refused with a message, whatever is in it."""

from pathlib import Path

import pytest
from fuzzing import damaged, fuzz

from inference_energy.config.loader import read_merged
from inference_energy.config.root import Config
from inference_energy.errors import InputError

ROOT = Path(__file__).parents[2]
OVERLAY = b"""\
anchor: &chat {prompts: {source: synthetic, length: {distribution: fixed, tokens: 8}}, max_tokens: 8}
run: [mine]
sessions: {mine: {server: theirs, windows: [few]}}
windows: {few: {workload: mine, arrival: {process: gamma, rate_qps: 1e1, burstiness: 0.5}, duration_s: 60}}
workloads: {mine: {<<: *chat, api: completions}}
servers: {theirs: {mode: launch, model: smollm2-135m, arguments: {max-num-seqs: 8, seed: 0x10}}}
impact: {carbon: {zone: 'NO', intensity_g_per_kwh: 30, basis: direct, source: "NVE 2024"}, pue: 1.1, pue_source: ours}
metrics: {embodied: {total_kg: 1500, lifetime_years: 4, source: a report}}
"""
DOCUMENTS = [
    OVERLAY,
    OVERLAY.partition(b"\n")[2].replace(b"<<: *chat, ", b"prompts: {source: questions}, "),
    b'{"windows": {"low": {"duration_s": 30, "arrival": {"process": "closed", "concurrency": 2}}}, "seed": 3}',
    (ROOT / "config.yaml").read_bytes(),
]


def test_a_configuration_is_validated_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            assert isinstance(read_merged([ROOT / "config.yaml", path], quiet=True), Config)
        except InputError as error:
            assert len(str(error)) < 100_000
            str(error).encode()

    fuzz(damaged(DOCUMENTS), check)
    assert capsys.readouterr().err == ""
