"""Files that estimates read give finite figures or one refusal, whatever they hold; nothing is a traceback."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from fuzzing import damaged, fuzz

from inference_energy.errors import InputError
from inference_energy.estimate.calibration import SHIPPED, read_calibration, shipped_calibration
from inference_energy.estimate.compare import EstimateRequest, basis_for, compare_estimates
from inference_energy.estimate.gpus import find_gpu
from inference_energy.estimate.reference_rows import read_rows
from inference_energy.estimate.shapes.config_json import catalogue_models, shape_from_file, shape_of

PUBLISHED = json.loads((Path(__file__).parents[1] / "estimate/published_models.json").read_text())
OF_MANY_KEYS = ("Qwen3-235B-A22B", "DeepSeek-V3.2", "Llama-4-Scout", "Step-3", "mpt-7b", "falcon-40b", "Hunyuan-A13B")
CONFIGS = [json.dumps(entry["config"]).encode() for entry in PUBLISHED if entry["name"] in OF_MANY_KEYS]
CONFIGS.append(json.dumps(catalogue_models()["gpt-oss-20b"]["config"]).encode())
CALIBRATIONS = [json.dumps(shipped_calibration(name).record).encode() for name in SHIPPED]
ROWS = [
    json.dumps([{"model": "Qwen3-8B", "gpu": "H100-SXM", "batch": 8, "energy_per_output_token_j": 0.5}] * 2).encode(),
    b"model,gpu,batch,energy_per_output_token_j,label\nQwen3-8B,H100-SXM,64,0.5,mine\n",
]


def test_a_config_gives_a_shape_with_finite_numbers_or_one_refusal(tmp_path: Path) -> None:
    file = tmp_path / "config.json"

    def check(content: bytes) -> None:
        file.write_bytes(content)
        try:
            shape = shape_from_file(file, "m")
        except InputError as error:
            assert len(str(error)) < 1000
            return
        facts = shape.facts()
        assert 0 < facts.active_parameters <= facts.parameters
        numbers = (facts.weight_bytes, facts.kv_bytes_per_token, shape.step_bytes(8), shape.prefill_flops(500))
        assert all(math.isfinite(number) and number > 0 for number in map(float, numbers))

    fuzz(damaged(CONFIGS), check)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_calibration_and_a_table_give_finite_figures_or_one_refusal(tmp_path: Path) -> None:
    card = find_gpu("H100-SXM")
    request = EstimateRequest(shape_of("Qwen3-8B"), card, batch=8, input_tokens=100, output_tokens=100)
    calibration, table, text = tmp_path / "c.json", tmp_path / "t.json", tmp_path / "t.csv"

    def check(content: bytes) -> None:
        for path in (calibration, table, text):
            path.write_bytes(content)
        try:
            fitted = read_calibration(str(calibration))
        except InputError as error:
            assert len(str(error)) < 1000
        else:
            row = compare_estimates(request, basis_for(card, fitted)).estimates[-1]
            assert row.unavailable or (row.energy_per_output_token_j or 0) > 0
        for path in (table, text):
            try:
                rows = read_rows(path)
            except InputError as error:
                assert len(str(error)) < 6000
            else:
                assert np.isfinite([row.output_j for row in rows if not row.is_prefill]).all()

    fuzz(damaged([*CALIBRATIONS, *ROWS]), check)
