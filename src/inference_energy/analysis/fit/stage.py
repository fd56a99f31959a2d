"""Stage `fit`: what a token costs on one server, by each model of the family, over all its windows."""

from typing import Any

from inference_energy.analysis.fit.cells import Cell, gather
from inference_energy.analysis.fit.linear import Weighting
from inference_energy.analysis.fit.models import MODELS, fit_model
from inference_energy.config.analysis import Uncertainty
from inference_energy.errors import InputError

WEIGHTING: Weighting = "relative"


def fit(
    sessions: list[tuple[dict[str, Any], dict[str, Any]]], uncertainty: Uncertainty | None = None
) -> dict[str, Any]:
    """fit.json of one server on one machine.

    Args:
        sessions: (energy.json, steady_load.json) of each of its sessions.
        uncertainty: what is not known of the sensors; None gives no intervals.

    Returns:
        `machine`, `server`, `weighting`, `models` by name, `cells` used, `excluded` with reasons, and `missing_cells`:
        kinds of window that would tell the terms apart and were not measured.

    Raises:
        InputError: the sessions are of different servers or machines.
    """
    owners = {(energy["machine"], energy["server"]) for energy, _ in sessions}
    if len(owners) != 1:
        raise InputError(f"a fit takes the sessions of one server on one machine, but these are of {sorted(owners)}")
    (machine, server) = owners.pop()
    # In the order of names, so that the result does not depend on that of the files.
    cells, excluded = gather(sorted(sessions, key=lambda parts: str(parts[0]["session"])))
    return {
        "version": 1,
        "machine": machine,
        "server": server,
        "weighting": WEIGHTING,
        "models": {model.name: fit_model(model, cells, WEIGHTING, uncertainty) for model in MODELS},
        "cells": [
            {
                "cell": cell.name,
                "kind": cell.kind,
                "duration_s": cell.duration_s,
                "uncached_prompt_tokens": cell.prompt_tokens,
                "cached_tokens_known": cell.cached_known,
                "generated_tokens": cell.generated_tokens,
                "energy_total_j": cell.energy_total_j,
                "energy_active_j": cell.energy_active_j,
            }
            for cell in cells
        ],
        "excluded": excluded,
        "missing_cells": missing_cells(cells),
    }


def missing_cells(cells: list[Cell]) -> list[str]:
    """Windows that a fit needs and that are not among the usable ones, in words."""
    kinds = [cell.kind for cell in cells]
    wanted = []
    if "prefill" not in kinds:
        wanted.append("a window of kind prefill: long prompts, max_tokens 1")
    if "decode" not in kinds:
        wanted.append("a window of kind decode: short prompts, long outputs")
    if kinds.count("steady") < 2:
        wanted.append("steady windows at two different rates")
    return wanted
