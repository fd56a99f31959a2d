"""The fit: known constants from made rows, what it refuses, leaving models out, and the file."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.estimate.configurations import row, shape

from inference_energy.contracts.io import write_json
from inference_energy.errors import InputError
from inference_energy.estimate.calibration import SHIPPED, read_calibration, shipped_calibration
from inference_energy.estimate.calibration_fit import (
    Design,
    design_of,
    fit_rows,
    fit_shipped,
    fit_table,
    leave_models_out,
    solve,
)
from inference_energy.estimate.compare import EstimateRequest, basis_for, compare_estimates
from inference_energy.estimate.gpus import find_gpu
from inference_energy.estimate.reference_rows import MeasuredRow, cases_of
from inference_energy.estimate.shapes.config_json import shape_of

BYTE, FLOP, TOKEN, PREFILL = 200e-12, 2e-12, 0.015, 1e-12
MODELS = ("Qwen3-8B", "Qwen3-14B", "Qwen3-32B", "gemma-3-12b", "Llama-3.1-70B")
BATCHES = (4, 16, 64, 256)


def made(rows: list[MeasuredRow], noise: NDArray[np.float64] | float = 0.0, prefill: float = 0.0) -> list[MeasuredRow]:
    """The rows with the energy that the constants give, off by relative noise."""
    cases = cases_of(rows)
    each = BYTE * (cases.step_bytes / cases.batch + cases.kv_read_bytes) + FLOP * 2 * cases.active + TOKEN
    prompts = prefill * np.nan_to_num(cases.prefill_flops)
    noise = np.broadcast_to(noise, (len(rows),))
    content = []
    for place, one in enumerate(rows):
        if one.is_prefill:
            found = {"prompt_j": float(prompts[place] / one.input_tokens * (1 + noise[place]))}
        else:
            share = prompts[place] / one.output_tokens if prefill else 0.0
            found = {"output_j": float((each[place] + share) * (1 + noise[place]))}
        content.append(MeasuredRow(**{**one.__dict__, **found}))
    return content


def sweep(**changes: Any) -> list[MeasuredRow]:
    card = find_gpu("H100-SXM")
    return [
        row(
            label=f"{name} {batch}", shape=shape_of(name), gpu=card, batch=float(batch), context_tokens=500.0, **changes
        )
        for name in MODELS
        for batch in BATCHES
    ]


def coefficients(content: dict[str, Any]) -> dict[str, float]:
    return {entry["term"]: entry["value"] for entry in content["coefficients"]}


def test_exact_rows_give_the_constants_back() -> None:
    content = fit_rows(made(sweep()), "made", {})
    assert coefficients(content) == pytest.approx({"byte": BYTE, "flop": FLOP, "token": TOKEN})
    assert content["in_sample_mape"] < 1e-9
    assert content["leave_one_model_out_mape"] < 1e-9
    assert (content["prompts"], content["rows"], content["batches"]) == ("inside", 20, [4, 256])


def test_intervals_cover_the_constants_and_new_rows() -> None:
    """Over 400 made tables with 5 % noise: 95 % of the intervals, within three standard errors of that share."""
    random = np.random.default_rng(7)
    clean = made(sweep())
    truth = np.array([BYTE, FLOP, TOKEN])
    design = design_of(clean)
    covered, held = [], []
    for _ in range(400):
        noisy = made(sweep(), random.normal(0, 0.05, len(clean)))
        content = fit_rows(noisy, "made", {})
        values = np.array([entry["value"] for entry in content["coefficients"]])
        errors = np.array([entry["standard_error"] for entry in content["coefficients"]])
        covered.append(np.abs(values - truth) <= content["t_95"] * errors)
        place = int(random.integers(len(clean)))
        column = design.columns[place]
        spread = content["residual_relative_std"] * float(column @ values)
        half = content["t_95"] * np.sqrt(column @ np.array(content["covariance"]) @ column + spread**2)
        new = design.energy_j[place] * (1 + random.normal(0, 0.05))
        held.append(abs(new - column @ values) <= half)
    assert np.mean(covered, axis=0) == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 400) + 0.005)
    assert np.mean(held) == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 400) + 0.005)


def test_weights_count() -> None:
    rows = made(sweep())
    wrong = [*rows[1:], MeasuredRow(**{**rows[0].__dict__, "output_j": 3 * rows[0].output_j})]
    light = [MeasuredRow(**{**one.__dict__, "weight": 1e-9 if one.label == rows[0].label else 1.0}) for one in wrong]
    assert coefficients(fit_rows(light, "light", {}))["byte"] == pytest.approx(BYTE, rel=1e-6)
    assert coefficients(fit_rows(wrong, "wrong", {}))["byte"] != pytest.approx(BYTE, rel=1e-2)
    twice = [MeasuredRow(**{**one.__dict__, "weight": 2.0}) for one in wrong]
    same = fit_rows(twice, "twice", {})
    assert same["coefficients"] == [pytest.approx(entry) for entry in fit_rows(wrong, "wrong", {})["coefficients"]]
    assert same["residual_relative_std"] == pytest.approx(fit_rows(wrong, "wrong", {})["residual_relative_std"])


def test_rows_that_are_not_to_be_scored_are_left_out() -> None:
    rows = made(sweep())
    wrong = MeasuredRow(**{**rows[0].__dict__, "output_j": 100.0, "use": "artefact"})
    assert fit_rows([*rows, wrong], "made", {})["rows"] == len(rows)


def test_a_left_out_model_has_no_part_in_its_prediction() -> None:
    """However wrong its own rows are, their prediction stays; that of the others does not."""
    rows = made(sweep())
    own = np.array([one.shape.name == "Qwen3-14B" for one in rows])
    wrong = [
        MeasuredRow(**{**one.__dict__, "output_j": one.output_j * (5 if mine else 1)})
        for one, mine in zip(rows, own, strict=True)
    ]
    plain, changed = leave_models_out(design_of(rows)), leave_models_out(design_of(wrong))
    assert plain is not None
    assert changed is not None
    np.testing.assert_allclose(changed[own], plain[own], rtol=1e-12)
    assert np.all(np.abs(changed[~own] / plain[~own] - 1) > 1e-3)


def test_leaving_models_out_by_hand() -> None:
    random = np.random.default_rng(3)
    rows = made(sweep(), random.normal(0, 0.1, 20))
    design = design_of(rows)
    found = leave_models_out(design)
    assert found is not None
    for name in MODELS:
        kept = np.array([one.shape.name != name for one in rows])
        x, y = design.columns[kept], design.energy_j[kept]
        weights = np.diag(1 / y**2)
        values = np.linalg.solve(x.T @ weights @ x, x.T @ weights @ y)
        np.testing.assert_allclose(found[~kept], design.columns[~kept] @ values, rtol=1e-6)


def test_the_covariance_is_that_of_weighted_least_squares() -> None:
    random = np.random.default_rng(3)
    design: Design = design_of(made(sweep(), random.normal(0, 0.1, 20)))
    solved = solve(design)
    scaled = design.columns / design.energy_j[:, None]
    residuals = 1 - scaled @ solved.values
    expected = residuals @ residuals / 17 * np.linalg.inv(scaled.T @ scaled)
    np.testing.assert_allclose(solved.covariance, expected, rtol=1e-6)


def test_prompts_apart_have_a_term_of_their_own() -> None:
    lengths = {"input_tokens": 300.0, "output_tokens": 200.0}
    alone = [
        row(
            label=f"prompts {name}",
            shape=shape_of(name),
            gpu=find_gpu("H100-SXM"),
            output_j=float("nan"),
            prompt_j=1.0,
            input_tokens=2000.0,
            output_tokens=1.0,
        )
        for name in MODELS
    ]
    content = fit_rows(made([*sweep(**lengths), *alone], prefill=PREFILL), "apart", {})
    assert content["prompts"] == "apart"
    expected = {"byte": BYTE, "flop": FLOP, "token": TOKEN, "prefill": PREFILL}
    assert coefficients(content) == pytest.approx(expected)


def test_one_model_cannot_tell_a_constant_from_its_flops() -> None:
    rows = [one for one in made(sweep()) if one.shape.name == "Qwen3-8B"]
    content = fit_rows(rows, "one", {})
    assert list(coefficients(content)) == ["byte", "flop"]
    assert "constant" in content["notes"][0]
    assert content["leave_one_model_out_mape"] is None
    assert coefficients(content)["byte"] == pytest.approx(BYTE)


def test_a_negative_term_is_left_out() -> None:
    rows = [MeasuredRow(**{**one.__dict__, "output_j": one.output_j - 0.030}) for one in made(sweep())]
    content = fit_rows(rows, "negative", {})
    assert "token" not in coefficients(content)
    assert any("negative" in note for note in content["notes"])


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([], "no rows"),
        ([row(use="show")], "no rows"),
        ([row(), row(gpu=find_gpu("L4"))], "different GPUs"),
        ([row(batch=float("nan"))], "batch"),
        ([row(context_tokens=float("nan"))], "context_tokens"),
        ([row(), row(shape=shape("big", mlp=9)), row(batch=20.0)], "more rows"),
        ([row(weight=0.0)], "weight"),
        ([row(batch=10.0 + i * 1e-6, shape=shape("other" if i % 2 else "round")) for i in range(8)], "too alike"),
        ([row(), row(output_j=float("nan"), prompt_j=0.1, input_tokens=9.0, output_tokens=1.0)], "input_tokens"),
    ],
)
def test_what_cannot_be_fitted_is_said(rows: list[MeasuredRow], word: str) -> None:
    with pytest.raises(InputError, match=word):
        fit_rows(rows, "bad", {})


def test_a_file_predicts_as_what_it_was_fitted_to(tmp_path: Path) -> None:
    rows = made(sweep())
    write_json(tmp_path / "mine.json", fit_rows(rows, "mine", {"by": "hand"}))
    found = read_calibration(str(tmp_path / "mine.json")).output_tokens(cases_of(rows))
    np.testing.assert_allclose(found.energy_j, [one.output_j for one in rows])


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_calibrations_are_what_their_command_gives(name: str) -> None:
    shipped, fitted = copy.deepcopy(shipped_calibration(name).record), fit_shipped(name)
    for content in (shipped, fitted):
        content["coefficients"] = {entry["term"]: entry["value"] for entry in content["coefficients"]}
        content["covariance"] = np.array(content["covariance"]).ravel().tolist()
        content.pop("toolkit")
    assert set(shipped) == set(fitted)
    for key, value in fitted.items():
        numbers = isinstance(value, float) or key in ("coefficients", "covariance")
        assert shipped[key] == (pytest.approx(value, rel=1e-6) if numbers else value), key
    assert "estimate fit --shipped" in shipped["provenance"]["command"]
    assert shipped["provenance"]["sources"]


def test_published_dense_rows_are_met_in_sample_and_left_out() -> None:
    content = shipped_calibration("h100-published").record
    assert len(content["models"]) == 6
    assert content["in_sample_mape"] < 0.06
    assert content["leave_one_model_out_mape"] < 0.08


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "something else"},
        [],
        {"kind": "energy-roofline calibration"},
        {**shipped_calibration("h100-published").record, "covariance": [[1.0]]},
        {**shipped_calibration("h100-published").record, "coefficients": [{"term": "novel", "value": 1}]},
    ],
)
def test_what_is_not_a_calibration_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"^calibration: .*bad\.json"):
        read_calibration(str(path))


def test_a_table_is_fitted_from_its_file(tmp_path: Path) -> None:
    lines = ["model,gpu,batch,context_tokens,energy_per_output_token_j,source"]
    lines += [
        f"{one.shape.name},H100-SXM,{one.batch},{one.context_tokens},{one.output_j:.9g},mine" for one in made(sweep())
    ]
    path = tmp_path / "sweep.csv"
    path.write_text("\n".join(lines) + "\n")
    content = fit_table(path)
    assert content["name"] == "sweep"
    assert content["provenance"] == {"table": "sweep.csv", "sources": ["mine"]}
    assert coefficients(content) == pytest.approx({"byte": BYTE, "flop": FLOP, "token": TOKEN}, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"gpus": "H100-SXM"}, "gpus"),
        ({"models": [1]}, "models"),
        ({"coefficients": []}, "coefficients"),
        ({"relative_std": -0.1}, "negative"),
        ({"t_95": "nan"}, "not finite"),
        ({"batches": [8, 10**400]}, "damaged"),
        ({"fitted_j": ["a"]}, "damaged"),
        ({"covariance": [[1e999]]}, "damaged|not JSON|Infinity"),
    ],
)
def test_a_damaged_calibration_is_refused(changes: dict[str, Any], word: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**shipped_calibration(SHIPPED[0]).record, **changes}))
    with pytest.raises(InputError, match=word):
        read_calibration(str(path))


@pytest.mark.parametrize("content", [b"[" * 10_000, b"\xff", b'{"kind": NaN}', b"{}"])
def test_a_file_that_is_no_calibration_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"mine\.json"):
        read_calibration(str(path))


def test_an_energy_below_zero_is_no_estimate(tmp_path: Path) -> None:
    record = copy.deepcopy(shipped_calibration(SHIPPED[0]).record)
    for entry in record["coefficients"]:
        entry["value"] = -entry["value"]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(record))
    card = find_gpu("H100-SXM")
    request = EstimateRequest(shape_of("Qwen3-8B"), card, batch=8, input_tokens=100, output_tokens=100)
    found = compare_estimates(request, basis_for(card, read_calibration(str(path)))).estimates[-1]
    assert found.energy_per_output_token_j is None
    assert "0 or less" in str(found.unavailable)
