import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_energy.contracts.figure import Figure, Reason, missing_figure
from inference_energy.present.figures_text import format_figure, plain, scale_for, sentence, significant


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.15149, "0.151"),
        (12345.6, "12,300"),
        (0, "0"),
        (9.999, "10.00"),
        (-0.0456, "−0.0456"),
        (float("nan"), "not finite"),
    ],
)
def test_three_significant_digits(value, shown):
    assert significant(value) == shown


@given(st.floats(min_value=1e-9, max_value=1e9))
def test_no_scientific_notation_and_three_digits_kept(value):
    text = significant(value)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.006)


@pytest.mark.parametrize(
    ("values", "unit", "shown"),
    [
        ([0.56, 0.151], "J/token", "J / token"),
        ([0.56, 0.060], "J/token", "mJ / token"),
        ([12_335.0, 33_375.0], "J", "kJ"),
        ([455.0, 1200.0], "W", "W"),
        ([0.25], "s", "ms"),
        ([0.25, 30.0], "s", "s"),
        ([0.0034], "kWh", "Wh"),
        ([0.02], "gCO2e", "mg CO₂e"),
        ([5.0], "request/s", "requests / s"),
        ([None, None], "J", "J"),
    ],
)
def test_figures_side_by_side_share_a_unit(values, unit, shown):
    assert scale_for(values, unit).unit == shown


def test_kwh_becomes_wh_with_the_right_number():
    shown = format_figure(Figure(0.0034, "kWh", "total", "gpu", "counter"))
    assert shown.text == "3.40 Wh"


def test_a_count_is_shown_whole():
    assert format_figure(Figure(675_843, "token", "none", "client", "counted")).text == "675,843 tokens"


def test_an_invalid_figure_has_no_number_and_its_reason():
    figure = missing_figure("J", "active", "gpu", "counter", Reason("gap", "the power log has a hole"))
    shown = format_figure(figure)
    assert (shown.text, shown.number, shown.why) == ("not given", "", "The power log has a hole.")


def test_a_figure_marked_invalid_with_a_value_is_refused():
    figure = {**Figure(3.0, "J", "total", "gpu", "counter").as_dict(), "valid": False}
    with pytest.raises(msgspec.ValidationError, match="a value exactly when it is valid"):
        msgspec.convert(figure, Figure)


def test_modelled_is_flagged_and_named():
    shown = format_figure(Figure(1.0, "J", "total", "cpu (modelled)", "modelled"))
    assert shown.untrusted
    assert "modelled" in shown.qualifiers


def test_a_figure_that_the_summary_lacks_says_so():
    assert "no such figure" in format_figure(None).why


def test_plain_values():
    assert [plain(v) for v in (None, True, 1.5, [], ["a", 2], {"k": 1})] == ["–", "yes", "1.5", "none", "a, 2", "k 1"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no request ended", "No request ended."),
        ("impact.water.source is not given", "impact.water.source is not given."),
        ("trim_end_s: too long", "trim_end_s: too long."),
        ("is that so?", "Is that so?"),
        ("  ", "No reason was recorded."),
    ],
)
def test_reasons_become_sentences_and_keys_stay_as_they_are(text: str, shown: str) -> None:
    assert sentence(text) == shown
