"""The fits: published windows, refusals, held-out errors."""

import dataclasses
from types import SimpleNamespace

import pytest

from inference_energy.analysis.fit.cells import FitCell
from inference_energy.analysis.fit.models import MODELS, fit_model, fit_server, missing_cells
from inference_energy.errors import InputError

TWO_TERM, POWER_TERM = MODELS


def cell(name, duration_s, prompt, generated, energy_j, kind="steady", active_j=None):
    return FitCell(name, kind, duration_s, prompt, generated, energy_j, active_j, "gpu", "sampled")


# Five windows of an 8B model on one H100: s, prompt tokens, generated tokens, J (measured; energy is the total).
PUBLISHED = [
    cell("4 req/s", 27.1, 22_126, 22_016, 12_335.0, active_j=12_335.0),
    cell("16 req/s", 32.0, 115_963, 117_760, 17_790.0, active_j=17_790.0),
    cell("48 req/s", 50.7, 556_068, 556_288, 33_375.0, active_j=33_375.0),
    cell("prefill", 25.2, 998_187, 499, 17_062.0, "prefill", active_j=17_062.0),
    cell("decode", 33.7, 3_193, 102_400, 16_369.0, "decode", active_j=16_369.0),
]


def ratios(result):
    return [row.ratio for row in result.residuals]


def values(result):
    return {term: figure.value for term, figure in result.coefficients.items()}


def codes(result):
    return {r.code for r in result.refused}


def test_two_terms_miss_the_published_windows_as_published():
    result = fit_model(TWO_TERM, PUBLISHED)
    assert ratios(result) == pytest.approx([0.16, 0.58, 1.46, 0.94, 0.45], abs=0.005)
    assert codes(result) == {"poor_generalisation"}
    assert values(result) == {"prompt": None, "generated": None}


def test_a_power_term_explains_the_published_windows():
    result = fit_model(POWER_TERM, PUBLISHED)
    # The last is 1.0152 here: the published times are rounded to 0.1 s.
    assert ratios(result) == pytest.approx([1.02, 0.94, 1.02, 1.00, 1.01], abs=0.006)
    found = values(result)
    assert found["power"] == pytest.approx(449, abs=0.5)
    assert found["prompt"] == pytest.approx(5.8e-3, abs=0.05e-3)
    assert found["generated"] == pytest.approx(14e-3, abs=0.5e-3)
    assert result.dof == 2
    assert result.condition_number < 4
    assert result.r2 > 0.99


def test_plain_least_squares_does_not_give_the_published_numbers():
    assert ratios(fit_model(TWO_TERM, PUBLISHED, "plain"))[2] == pytest.approx(1.14, abs=0.01)
    assert values(fit_model(POWER_TERM, PUBLISHED, "plain"))["power"] > 455


def test_exact_cells_give_back_their_coefficients_and_no_held_out_error():
    made = [
        dataclasses.replace(c, energy_total_j=300 * c.duration_s + 0.01 * c.prompt_tokens + 0.05 * c.generated_tokens)
        for c in PUBLISHED
    ]
    result = fit_model(POWER_TERM, made)
    assert values(result) == pytest.approx({"power": 300, "prompt": 0.01, "generated": 0.05}, rel=1e-6)
    assert result.leave_one_out.worst_abs_relative_error < 1e-6


def test_one_workload_alone_is_collinear():
    made = [cell(str(n), 30.0, 1000.0 * n, 1000.0 * n + n % 2, 5000.0 + n, active_j=4000.0 * n) for n in range(1, 6)]
    result = fit_model(TWO_TERM, made)
    assert codes(result) == {"collinear"}
    assert values(result) == {"prompt": None, "generated": None}
    assert result.residuals == []
    assert "prefill" in result.refused[0].detail


def test_a_column_of_zeros_is_collinear():
    made = [dataclasses.replace(c, generated_tokens=0.0) for c in PUBLISHED]
    result = fit_model(POWER_TERM, made)
    assert codes(result) == {"collinear"}
    assert result.condition_number is None


@pytest.mark.parametrize("count", [3, 4])
def test_too_few_cells(count):
    result = fit_model(POWER_TERM, PUBLISHED[:count])
    assert "too_few_cells" in codes(result)
    assert "at least 5" in result.refused[0].detail
    assert values(result) == {"power": None, "prompt": None, "generated": None}
    assert fit_model(POWER_TERM, []).coefficients["power"].valid is False


def test_cells_without_cold_idle_do_not_enter_the_active_fit():
    made = [dataclasses.replace(c, energy_active_j=None) for c in PUBLISHED]
    result = fit_model(TWO_TERM, made)
    assert codes(result) == {"too_few_cells"}
    assert "5 more have no cold idle" in result.refused[0].detail
    assert fit_model(POWER_TERM, made).refused == []


def test_a_negative_coefficient_is_refused():
    made = [
        dataclasses.replace(c, energy_total_j=500 * c.duration_s - 0.004 * c.prompt_tokens + 0.02 * c.generated_tokens)
        for c in PUBLISHED
    ]
    result = fit_model(POWER_TERM, made)
    assert codes(result) == {"negative_coefficient"}
    assert values(result) == {"power": None, "prompt": None, "generated": None}
    assert result.r2 is None


# The default experiment on two CPUs without a sensor: R2 is 0.999998, and each window left out is another model.
FLATTERED = [
    cell("low", 55.0, 634, 283, 1554.35),
    cell("high", 55.0, 8861, 4694, 3528.82),
    cell("prefill", 20.0, 14336, 56, 1284.88, "prefill"),
    cell("decode", 20.0, 624, 2090, 1283.60, "decode"),
]


def test_a_fit_that_only_fits_itself_gives_no_coefficients_but_its_errors():
    result = fit_model(POWER_TERM, FLATTERED)
    assert result.r2 > 0.99999
    assert result.leave_one_out.mean_abs_relative_error == pytest.approx(0.57, abs=0.01)
    assert result.leave_one_out.worst_abs_relative_error == pytest.approx(2.27, abs=0.01)
    assert codes(result) == {"too_few_cells", "poor_generalisation"}
    assert values(result) == {"power": None, "prompt": None, "generated": None}
    details = [r.detail for r in result.coefficients["power"].reasons]
    assert any("57 % on average, at worst by 22" in detail for detail in details)


def test_the_held_out_error_may_be_a_quarter():
    made = [dataclasses.replace(c, energy_total_j=c.energy_total_j * f) for c, f in zip(PUBLISHED, WITHIN, strict=True)]
    result = fit_model(POWER_TERM, made)
    assert 0.05 < result.leave_one_out.mean_abs_relative_error < 0.25
    assert result.refused == []
    assert values(result)["power"] > 400


WITHIN = (1.06, 1.0, 0.97, 1.0, 0.96)


def test_prompt_tokens_of_unknown_origin_count_as_computed_and_say_so():
    made = [dataclasses.replace(PUBLISHED[0], cached_known=False), *PUBLISHED[1:]]
    result = fit_model(POWER_TERM, made)
    assert result.refused == []
    for figure in result.coefficients.values():
        assert figure.valid
        (note,) = figure.reasons
        assert note.code == "cached_tokens_unknown"
        assert "4 req/s" in note.detail
    assert all(not f.reasons for f in fit_model(POWER_TERM, PUBLISHED).coefficients.values())


def test_windows_of_different_boundaries_are_not_mixed():
    made = [dataclasses.replace(PUBLISHED[0], boundary="gpu + dram"), *PUBLISHED[1:]]
    assert codes(fit_model(POWER_TERM, made)) == {"mixed_boundaries"}


def test_missing_cells_are_named():
    assert missing_cells(PUBLISHED) == []
    named = missing_cells(PUBLISHED[:1])
    assert [word for text in named for word in ("prefill", "decode", "two different rates") if word in text] == [
        "prefill",
        "decode",
        "two different rates",
    ]


def test_servers_are_not_mixed():
    one, other = (SimpleNamespace(machine="m", server=name, session=name) for name in ("a", "b"))
    with pytest.raises(InputError, match="one server"):
        fit_server([(one, None), (other, None)])
