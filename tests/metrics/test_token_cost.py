"""Variance inflation and standard errors beside the fits."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_cells import measured

from inference_energy.contracts.documents.energy import FitDocument
from inference_energy.contracts.figure import missing_figure
from inference_energy.contracts.reason_codes import reason
from inference_energy.metrics.token_cost import token_cost, variance_inflation


def test_columns_at_right_angles_do_not_inflate():
    assert variance_inflation(np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])) == pytest.approx([1.0, 1.0])


@given(st.floats(0.1, 1.4))
def test_two_columns_at_an_angle_inflate_by_its_sine(angle):
    design = np.array([[1.0, np.cos(angle)], [0.0, np.sin(angle)]])
    assert variance_inflation(design) == pytest.approx([1 / np.sin(angle) ** 2] * 2, rel=1e-6)


def test_columns_that_are_one_or_nothing():
    assert variance_inflation(np.array([[1.0, 2.0], [2.0, 4.0]])) is None
    assert variance_inflation(np.array([[1.0, 0.0], [2.0, 0.0]])) is None


def test_beside_a_fit():
    cells = [
        {
            "cell": f"s.{n}",
            "duration_s": 10.0,
            "uncached_prompt_tokens": p,
            "generated_tokens": g,
            "energy_total_j": 1.0,
            "kind": "steady",
            "cached_tokens_known": True,
            "energy_active_j": None,
        }
        for n, p, g in (("a", 4.0, 0.0), ("b", 0.0, 3.0))
    ]
    refused = missing_figure("J/token", "total", "gpu", "counter", reason("collinear", "Too alike."))
    model = {
        "name": "two",
        "formula": "",
        "energy_basis": "total",
        "weighting": "relative",
        "dof": 0,
        "condition_number": None,
        "r2": None,
        "residuals": [],
        "mean_abs_relative_error": None,
        "leave_one_out": None,
        "refused": [],
        "cells": ["s.a", "s.b"],
        "coefficients": {"prompt": measured(2.0, "J/token").as_dict(), "generated": refused.as_dict()},
    }
    names = {"version": 1, "machine": "m", "server": "llama", "weighting": "relative"}
    content = {**names, "cells": cells, "models": {"two": model}, "excluded": [], "missing_cells": []}
    found = token_cost(msgspec.convert(content, FitDocument)).models["two"]
    assert found.standard_errors == {"prompt": pytest.approx(0.06), "generated": None}
    assert found.vif == pytest.approx({"prompt": 1.0, "generated": 1.0})
