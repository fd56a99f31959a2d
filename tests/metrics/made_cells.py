"""Windows of round numbers: 20 s, one request ending in each second, even power, so every metric can be had by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from inference_energy.analysis.uncertainty.budget import Term, with_budget
from inference_energy.config.analysis import Uncertainty
from inference_energy.contracts.documents.machine import ModelDocument
from inference_energy.contracts.figure import Figure, missing_figure
from inference_energy.contracts.reason_codes import reason
from inference_energy.metrics.inputs import Devices, WindowInputs

SECOND = 1_000_000_000
DURATION_S = 20
START_NS = 100 * SECOND
UNCERTAINTY = Uncertainty(gain=0.03, offset_w=0.0)
GPU = "gpu GPU-0 (nvml)"
COLD_W, LOADED_W = 50.0, 100.0
G_PER_KWH, PUE, WUE, EWIF = 360.0, 1.0, 0.5, 2.0


def measured(value: float, unit: str, basis: Any = "total", *, gain: float = 0.03, own: float = 0.0) -> Figure:
    """A figure with a gain of 3 % and perhaps a fluctuation of its own [share]."""
    terms = [Term("sensor gain", "B", gain * abs(value), math.inf, "stated")]
    terms += [Term("fluctuation of the load", "A", own * abs(value), math.inf, "invented")]
    return with_budget(Figure(value, unit, basis, "gpu", "counter"), terms)


def counted(value: float, unit: str) -> Figure:
    return Figure(value, unit, "none", "client", "counted")


def model_of(parameters: int | None, missing: dict[str, str] | None = None) -> ModelDocument:
    """A model.json that holds the number of parameters alone."""
    unknown: dict[str, Any] = dict.fromkeys(ModelDocument.__struct_fields__)
    return ModelDocument(**{**unknown, "source": "hub", "parameters": parameters, "missing": missing or {}})


def made_cell(
    *,
    name: str = "w",
    session: str = "s",
    power_w: float = 300.0,
    tokens_per_request: int = 100,
    requests_per_s: int = 1,
    good_per_s: int | None = None,
    latency_s: float = 2.0,
    workload: str = "chat",
    kind: str = "steady",
    scale: float = 1.0,
    order: list[int] | None = None,
    zero_token_requests: int = 0,
    duration_s: int = DURATION_S,
    own: float = 0.0,
    **changed: Any,
) -> WindowInputs:
    """A window; `scale` multiplies all power, `order` is that of the rows of requests."""
    seconds = np.arange(duration_s)
    ends_ns = np.repeat(START_NS + seconds * SECOND + SECOND // 2, requests_per_s)
    count = len(ends_ns)
    requests = pd.DataFrame(
        {
            "request_id": np.arange(count),
            "cell": name,
            "prompt_id": np.arange(count) % 10,
            "status": "ok",
            "sent_ns": ends_ns - round(latency_s * SECOND),
            "first_token_ns": ends_ns - round(latency_s * SECOND / 2),
            "last_token_ns": ends_ns,
            "end_ns": ends_ns,
            "completion_tokens": tokens_per_request,
        }
    )
    if zero_token_requests:
        empty = requests.head(zero_token_requests).assign(
            completion_tokens=0, first_token_ns=pd.NA, last_token_ns=pd.NA
        )
        requests = pd.concat(
            [requests, empty.assign(request_id=count + np.arange(zero_token_requests))], ignore_index=True
        )
    whole_ns = ["first_token_ns", "last_token_ns", "sent_ns", "end_ns", "completion_tokens"]
    requests = requests.astype(dict.fromkeys(whole_ns, "Int64"))
    tokens = count * tokens_per_request
    total_w = power_w * scale
    energies_j = {"total": total_w, "active": total_w - COLD_W * scale, "marginal": total_w - LOADED_W * scale}
    energies_j = {basis: watts * duration_s for basis, watts in energies_j.items()}
    receipts = pd.DataFrame(
        {
            "request_id": requests["request_id"],
            "cell": name,
            "policy": "completion_tokens",
            "energy_j": energies_j["total"] * requests["completion_tokens"].astype(float) / tokens,
            "prefill_energy_j": np.nan,
            "decode_energy_j": np.nan,
            "idle_energy_j": np.nan,
        }
    )
    if order is not None:
        requests, receipts = requests.iloc[order], receipts.iloc[order[::-1]]
    figures: dict[str, Figure] = {
        "power_mean_w": measured(total_w, "W", own=own),
        "energy_total_kwh": measured(energies_j["total"] / 3.6e6, "kWh"),
        "output_tokens": counted(tokens, "token"),
        "output_tokens_per_s": counted(tokens / duration_s, "token/s"),
        "requests": counted(len(requests), "request"),
        "requests_per_s": counted(len(requests) / duration_s, "request/s"),
        "tpot_p50_s": counted(latency_s / 2 / max(tokens_per_request - 1, 1), "s/token"),
    }
    for basis, energy_j in energies_j.items():
        figures[f"energy_{basis}_j"] = measured(energy_j, "J", basis)
        figures[f"energy_{basis}_per_output_token_j"] = measured(energy_j / tokens, "J/token", basis, own=own)
        figures[f"energy_{basis}_per_request_j"] = measured(energy_j / len(requests), "J/request", basis, own=own)
    grams = energies_j["total"] / 3.6e6 * G_PER_KWH * PUE
    figures["carbon_total_g"] = measured(grams, "gCO2e")
    figures["carbon_per_1k_output_tokens_g"] = measured(grams / tokens * 1000, "gCO2e/1k tokens", own=own)
    figures["carbon_per_request_g"] = measured(grams / len(requests), "gCO2e/request", own=own)
    figures["water_site_l"] = measured(energies_j["total"] / 3.6e6 * WUE, "L")
    figures["water_source_l"] = measured(energies_j["total"] / 3.6e6 * PUE * EWIF, "L")
    bins = {
        "energy_total_j": np.full(duration_s, total_w),
        "output_tokens": np.full(duration_s, float(tokens / duration_s)),
        "requests": np.full(duration_s, float(requests_per_s)),
    }
    if good_per_s is not None:
        good = good_per_s * duration_s
        figures["good_requests"] = counted(good, "request")
        figures["goodput_requests_per_s"] = counted(good_per_s, "request/s")
        figures["good_output_tokens"] = counted(good * tokens_per_request, "token")
        bins["good_requests"] = np.full(duration_s, float(good_per_s))
        bins["good_output_tokens"] = bins["good_requests"] * tokens_per_request
        for basis, energy_j in energies_j.items():
            none = missing_figure(
                "J/request", basis, "gpu", "counter", reason("no_requests", "No request kept all limits.")
            )
            each = measured(energy_j / good, "J/request", basis) if good else none
            figures[f"energy_{basis}_per_good_request_j"] = each
    given = {
        "machine": "m",
        "session": session,
        "server": "llama",
        "name": name,
        "kind": kind,
        "workload": workload,
        "times_ns": (START_NS, START_NS + duration_s * SECOND),
        "figures": figures,
        "bins": bins,
        "devices": Devices(
            {GPU: energies_j["total"]}, {"cold": {GPU: COLD_W * scale}, "loaded": {GPU: LOADED_W * scale}}, {}
        ),
        "idle": {"cold": measured(COLD_W * scale, "W", "none"), "loaded": measured(LOADED_W * scale, "W", "none")},
        "requests": requests,
        "receipts": receipts,
        "prompts": pd.DataFrame({"prompt_id": np.arange(10), "text": None, "messages": None, "answer": None}),
        "model": model_of(8_000_000_000),
    }
    return WindowInputs(**{**given, **changed})


def without(cell: WindowInputs, name: str, code: str = "gap") -> WindowInputs:
    """The cell with one figure missing."""
    old = cell.figures[name]
    figure = missing_figure(old.unit, old.basis, old.boundary, old.grade, reason(code, "Taken away by the test."))
    return WindowInputs(**{**vars(cell), "figures": {**cell.figures, name: figure}})


def codes(figure: Figure) -> list[str]:
    return [each.code for each in figure.reasons]
