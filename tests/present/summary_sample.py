"""The summary of the invented experiment: cells with budgets, idle powers and a fit."""

import math
from typing import Any

from inference_energy.analysis.uncertainty.budget import Term, with_budget
from inference_energy.contracts.figure import Figure, Reason, missing_figure
from inference_energy.contracts.grades import Grade

SECOND = 1_000_000_000
RATES = {"q04": 4, "q16": 16, "q48": 48}
WATTS = {"q04": 455.0, "q16": 556.0, "q48": 658.0}
COLD_W, LOADED_W = 71.0, 124.0

FACTORS = {
    "carbon": {
        "zone": "DEU",
        "intensity_g_per_kwh": 381,
        "basis": "lifecycle",
        "source": "Ember yearly electricity data, 2024",
    },
    "pue": 1.0,
    "pue_source": "none: IT energy alone",
    "water": {"wue_site_l_per_kwh": None, "ewif_grid_l_per_kwh": None, "source": None},
}


def bounded(figure: Figure, *, fluctuation: float = 0.01) -> Figure:
    """The figure with a budget, as the analysis gives it: a gain of 2.9 %, and a fluctuation as a share of the value.

    A modelled figure has none. Carbon has that of its energy.
    """
    if figure.value is None or figure.grade == "modelled":
        return figure
    gain = Term("sensor gain", "B", 0.029 * figure.value, math.inf, "2.9 % of each device's energy, stated")
    spread = Term("fluctuation of the load", "A", fluctuation * figure.value, 17.25, "block bootstrap over the window")
    return with_budget(figure, [gain, spread])


def make_summary(timeline: list[Any], grade: Grade, boundary: str) -> dict[str, Any]:
    cells = [_cell(cell, start, end, grade, boundary) for phase, cell, start, end in timeline if phase == "window"]

    def idle(value: float) -> dict[str, Any]:
        return bounded(Figure(value, "W", "none", boundary, grade)).as_dict()

    return {
        "version": 1,
        "experiment": "llama-sweep",
        "machines": ["h100-box"],
        "toolkit": {"version": "0.1.0"},
        "sessions": [],
        "cells": cells,
        "idle": [
            {
                "machine": "h100-box",
                "session": "sweep",
                "server": "llama",
                "cold_power_w": idle(COLD_W),
                "loaded_power_w": idle(LOADED_W),
                "post_power_w": idle(83.2),
            }
        ],
        "factors": FACTORS,
        "fits": [_fit(cells, grade, boundary)],
        "notes": [],
    }


def _cell(cell: str, start: int, end: int, grade: Grade, boundary: str) -> dict[str, Any]:
    rate, watts, duration = RATES.get(cell, 8), WATTS.get(cell, 600.0), end - start - 5
    tokens, prompts, count = rate * duration * 256, rate * duration * 256, rate * duration
    figures: dict[str, Figure] = {}

    def measured(name: str, value: float, unit: str, basis: Any = "none", kind: Grade = grade) -> None:
        figure = Figure(value, unit, basis, boundary if kind == grade else "client", kind)
        figures[name] = bounded(figure) if kind == grade else figure

    measured("duration_s", duration, "s", kind="counted")
    measured("power_mean_w", watts, "W")
    for basis, idle in (("total", 0.0), ("active", COLD_W), ("marginal", LOADED_W)):
        energy = (watts - idle) * duration
        measured(f"energy_{basis}_j", energy, "J", basis)
        measured(f"energy_{basis}_kwh", energy / 3.6e6, "kWh", basis)
        for per, amount in (("output_token", tokens), ("prompt_token", prompts), ("request", count)):
            measured(f"energy_{basis}_per_{per}_j", energy / amount, f"J/{per.split('_')[-1]}", basis)
    for name, value, unit in (
        ("output_tokens", tokens, "token"),
        ("prompt_tokens", prompts, "token"),
        ("cached_tokens", 0, "token"),
        ("requests", count, "request"),
        ("output_tokens_per_s", tokens / duration, "token/s"),
        ("requests_per_s", count / duration, "1/s"),
    ):
        measured(name, value, unit, kind="counted")
    for name, middle in (("ttft", 0.08), ("ttft_from_schedule", 0.082), ("tpot", 0.012), ("e2e", 3.1)):
        for rank, factor in ((50, 1.0), (90, 1.6), (99, 2.4)):
            measured(f"{name}_p{rank}_s", middle * factor, "s/token" if name == "tpot" else "s", kind="counted")
    grams = watts * duration / 3.6e6 * 381
    measured("carbon_total_g", grams, "gCO2e", "total")
    measured("carbon_per_1k_output_tokens_g", grams / tokens * 1000, "gCO2e/1k tokens", "total")
    for basis, idle in (("active", COLD_W), ("marginal", LOADED_W)):
        value = (watts - idle) / watts * grams / tokens * 1000
        measured(f"carbon_{basis}_per_1k_output_tokens_g", value, "gCO2e/1k tokens", basis)
    measured("carbon_per_request_g", grams / count, "gCO2e/request", "total")
    for name in ("water_site_l", "water_source_l"):
        figures[name] = missing_figure(
            "L", "total", boundary, grade, Reason("no_factor", "No water factor is configured.")
        )
    trends = {
        name: {"change_share": 0.012, "p_value": 0.4, "limit": 0.1, "exceeded": False, "block_means": [1.0]}
        for name in ("power_w", "output_tokens_per_s", "running_requests")
    }
    levels = {
        name: {"difference_share": -0.0042, "z": -0.8, "p_value": 0.7, "limit": 0.1, "exceeded": False}
        for name in ("power_w", "output_tokens_per_s")
    }
    count_row = {"client": tokens, "server": tokens, "difference": 0, "share": 0.0, "allowance": 0.0, "agrees": True}
    kind = cell if cell in ("prefill", "decode") else "steady"
    return {
        "cell": f"sweep.{cell}",
        "machine": "h100-box",
        "session": "sweep",
        "server": "llama",
        "model": "Llama-3.1-8B-Instruct",
        "kind": kind,
        "load": {
            "kind": kind,
            "workload": "chat",
            "arrival": {"process": "poisson", "rate_qps": rate},
            "text": f"Poisson {rate} req/s, chat",
        },
        "window": {"name": cell, "start_ns": (start + 5) * SECOND, "end_ns": end * SECOND},
        "figures": {name: figure.as_dict() for name, figure in figures.items()},
        "devices": [
            {
                "device": "GPU-4f1c9a02-77aa",
                "domain": "gpu",
                "source": "nvml",
                "grade": grade,
                "summed": True,
                "calibration": None,
                "clocks_event_shares": None,
                "energy_j": watts * duration,
                "reading": "counter",
                "counter_energy_j": watts * duration,
                "ratios": {"average": 0.99961, "instant": 1.00283},
            }
        ],
        "counts": {
            "output_tokens": tokens,
            "prompt_tokens": prompts,
            "cached_tokens": 0,
            "cached_tokens_known": True,
            "scheduled": count,
            "started": count,
            "finished": count,
            "failed": 0,
            "aborted": 0,
            "without_usage": 0,
            "engine_steps": None,
        },
        "client": None,
        "checks": {
            "steadiness": {
                "judged": True,
                "steady": True,
                "blocks": 9,
                "why_not_judged": None,
                "trends": trends,
                "stationarity": levels,
                "required": kind == "steady",
            },
            "whole_cell": {"why": "the summary has no such comparison"},
            "prompt_lengths": None,
            "limits": None,
            "reconciliation": {"generated": count_row, "prompt": count_row, "cached": None},
            "client_lag_s": {"p50": 0.001, "p99": 0.006, "max": 0.011},
            "preemptions": 0,
        },
    }


def _fit(cells: list[dict[str, Any]], grade: Grade, boundary: str) -> dict[str, Any]:
    names = [cell["cell"] for cell in cells]
    energies = {cell["cell"]: cell["figures"]["energy_total_j"]["value"] for cell in cells}
    refusal = Reason("too_few_cells", "2 usable windows for 2 coefficients.")

    def model(name: str, terms: dict[str, tuple[float, str]], spread: float, refused: bool = False) -> dict[str, Any]:
        ratios = {cell: 1 + spread * (-1) ** index for index, cell in enumerate(names)}
        return {
            "name": name,
            "formula": "E_total = P0 * T + a * prompt + b * generated",
            "energy_basis": "total",
            "weighting": "relative",
            "cells": names,
            "dof": 2,
            "condition_number": None if refused else 7.3,
            "r2": None if refused else 0.98,
            "residuals": []
            if refused
            else [
                {"cell": c, "measured_j": energies[c], "predicted_j": r * energies[c], "ratio": r}
                for c, r in ratios.items()
            ],
            "mean_abs_relative_error": None if refused else spread,
            "leave_one_out": None
            if refused
            else {
                "mean_abs_relative_error": 2 * spread,
                "worst_abs_relative_error": 3 * spread,
                "ratios": {cell: 1 + 2 * (ratio - 1) for cell, ratio in ratios.items()},
            },
            "refused": [{"code": refusal.code, "detail": refusal.detail}] if refused else [],
            "coefficients": {
                term: (
                    missing_figure(unit, "total", boundary, grade, refusal)
                    if refused
                    else bounded(Figure(value, unit, "total", boundary, grade))
                ).as_dict()
                for term, (value, unit) in terms.items()
            },
        }

    two = {"prompt": (0.03, "J/token"), "generated": (0.09, "J/token")}
    three = {"power": (449.0, "W"), "prompt": (0.0058, "J/token"), "generated": (0.014, "J/token")}
    return {
        "version": 1,
        "machine": "h100-box",
        "server": "llama",
        "weighting": "relative",
        "models": {
            "two_term": model("two_term", two, 0.3, refused=True),
            "power_term": model("power_term", three, 0.02),
        },
        "cells": [],
        "excluded": [{"cell": "sweep.bad", "reasons": [{"code": "gap", "detail": "The power log has a hole."}]}],
        "missing_cells": ["a window of kind decode: short prompts, long outputs"],
    }
