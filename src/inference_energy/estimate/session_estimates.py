"""Stage `estimate`: every estimator beside every steady window of a session, and how far it is from the measurement."""

from pathlib import Path
from typing import Any

import numpy as np

from inference_energy.analysis.server_metrics import ServerMetrics
from inference_energy.analysis.session_facts import identity, read_session
from inference_energy.analysis.windows import Window
from inference_energy.config.analysis import EstimateConfig
from inference_energy.contracts import requests as requests_contract
from inference_energy.contracts import server_metrics as metrics_contract
from inference_energy.contracts.io import read_json, read_table
from inference_energy.estimate.calibration import EnergyCalibration
from inference_energy.estimate.compare import ESTIMATORS, GRADE, EstimateRequest, basis_for, row_of
from inference_energy.estimate.scorecard import score
from inference_energy.estimate.session_inputs import ServedModel, WindowLoad, gpu_energy, load_of, read_served_model

STEADY = "steady"
FITTED_TOLERANCE = 1e-6


def estimate_session(
    *,
    session: Path,
    model: Path,
    environment: Path,
    requests: Path,
    server_metrics: Path,
    steady: dict[str, Any],
    energy: dict[str, Any],
    config: EstimateConfig,
    calibration: EnergyCalibration | None,
) -> dict[str, Any]:
    """estimates.json of a session.

    Args:
        session: session.json.
        model: model.json of its server.
        environment: its environment.json.
        requests: requests.parquet.
        server_metrics: server_metrics.parquet.
        steady: its steady_load.json.
        energy: its energy.json.
        config: the section `estimate`.
        calibration: what `config.calibration` names; None: the one that is shipped for the GPU, if any.

    Returns:
        `grade` (modelled), `model`, `architecture`, `gpu`, `gpus_per_copy`, `copies`, `unknown` (why nothing can be
        estimated), `notes`, `windows` (of each steady one `load`, `measured` and `estimates` with their `ratio`),
        `fit_windows` (of the others `load` and `measured`) and `scores` by estimator over the steady windows.

    Raises:
        InputError: a file cannot be used, or the configuration names a GPU that is not known.
    """
    recorded = read_session(session)
    described = read_json(model)
    served = read_served_model(described, read_json(environment), recorded, config.gpu)
    windows: dict[str, Any] = {}
    others: dict[str, Any] = {}
    if not served.unknown:
        asked = read_table(requests, requests_contract.SCHEMA)
        metrics = ServerMetrics(read_table(server_metrics, metrics_contract.SCHEMA))
        for name, load in steady["windows"].items():
            window = Window(name, int(load["start_ns"]), int(load["end_ns"]))
            known = load_of(window, asked[asked["cell"] == name], metrics, load)
            measured = gpu_energy(energy["windows"][name], load)
            if load["kind"] == STEADY:
                windows[name] = _window(served, known, measured, calibration)
            else:
                others[name] = {"kind": load["kind"], "load": known.as_dict(), "measured": measured}
    fitted = None if served.gpu is None else basis_for(served.gpu, calibration).calibration
    return {
        "version": 1,
        **identity(recorded),
        "grade": GRADE,
        "model": None if served.shape is None else served.shape.as_dict(),
        "architecture": described.get("architecture"),
        "gpu": None if served.gpu is None else {"name": served.gpu.name, "tdp_w": served.gpu.tdp_w},
        "gpus_per_copy": served.gpus_per_copy,
        "copies": served.copies,
        "calibration": None if fitted is None else fitted.name,
        "calibration_sha256": None if fitted is None else fitted.sha256,
        "unknown": list(served.unknown),
        "notes": list(served.notes),
        "windows": windows,
        "fit_windows": others,
        "scores": _scores(windows),
    }


def _window(
    served: ServedModel, load: WindowLoad, measured: dict[str, Any], calibration: EnergyCalibration | None
) -> dict[str, Any]:
    assert served.shape is not None and served.gpu is not None

    def of_copy(value: float | None) -> float | None:
        return None if value is None else value / served.copies

    request = EstimateRequest(
        shape=served.shape,
        gpu=served.gpu,
        tensor_parallel=served.gpus_per_copy,
        batch=of_copy(load.batch),
        input_tokens=load.input_tokens,
        output_tokens=load.output_tokens,
        context=load.context_tokens,
        throughput=of_copy(load.throughput),
        ttft_s=load.ttft_s,
    )
    basis = basis_for(served.gpu, calibration)
    cases = request.cases()
    truth = measured["energy_per_output_token_j"]
    rows = []
    for one in ESTIMATORS:
        values = one.estimate(cases, basis)
        row = row_of(one, values, 0, request.output_tokens)
        compared = float(values.scored[0])
        why = row["unavailable"]
        if why is None and truth is not None and one.id == "energy-roofline" and _is_fitted(basis.calibration, truth):
            why = "the calibration was fitted to this window: in sample, not scored"
        there = why is None and truth is not None and not np.isnan(compared)
        rows.append({**row, "compared_j": None if np.isnan(compared) else compared})
        rows[-1] |= {"ratio": compared / truth if there else None, "not_scored": why}
    return {"load": load.as_dict(), "measured": measured, "estimates": rows}


def _is_fitted(calibration: EnergyCalibration | None, measured_j: float) -> bool:
    """Whether the measured energy is one of those that the calibration was fitted to."""
    fitted = [] if calibration is None else calibration.record.get("fitted_j") or []
    return any(abs(one / measured_j - 1) < FITTED_TOLERANCE for one in fitted)


def _scores(windows: dict[str, Any]) -> dict[str, Any]:
    """Each estimator over the windows that it may be scored on."""
    found = {}
    for place, one in enumerate(ESTIMATORS):
        rows = [(window["estimates"][place], window["measured"]) for window in windows.values()]
        if not rows:
            continue
        pairs = [(row["compared_j"], measured["energy_per_output_token_j"]) for row, measured in rows if row["ratio"]]
        whys = [row["not_scored"] or measured["unavailable"] for row, measured in rows]
        why = "; ".join(dict.fromkeys(text for text in whys if text)) or None
        estimated, truth = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
        found[one.id] = score(one.id, estimated, truth, why=why).as_dict()
    return found
