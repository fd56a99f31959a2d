"""docs/explanation/bench.md says what the analysis makes of each fault: its table against simulated sessions."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from inference_energy.bench.config import Faults, SensorFault, ServerFaults
from inference_energy.contracts.reason_codes import CODES
from tests.bench.offline.test_faults_in_analysis import LASTS_S, NEVER_S, NO_COUNTER, analysed, fault, opening_s

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "bench.md"
TENANT = ({"power_w": 150.0, "start_s": 10.0, "end_s": 30.0},)

ROWS: list[tuple[str, str, dict[str, Any]]] = [
    ("`error`, all readings", "seconds long", {"faults": [fault("error", 20, 25)]}),
    ("`error`, all readings", "to the window's end", {"faults": [fault("error", LASTS_S - 5)]}),
    ("`error`, all readings", "always", {"faults": [fault("error", -NEVER_S)]}),
    ("`error`, all readings", "a share of the calls", {"faults": [fault("error", -5, probability=0.3)]}),
    ("`error`, `counter` alone", "for a while", {"faults": [fault("error", 15, 35, readings="counter")]}),
    ("`error`, `power` alone", "seconds long", {"faults": [fault("error", 20, 25, readings="power")]}),
    ("`error`, `power` alone", "always", {"faults": [fault("error", -NEVER_S, readings="power")]}),
    ("`stuck`, all readings", "3 s and longer", {"faults": [fault("stuck", 20, 24)]}),
    ("`stuck`, `counter` alone", "3 s and longer", {"faults": [fault("stuck", 20, 24, readings="counter")]}),
    ("`stuck`, `power` alone", "3 s and longer", {"faults": [fault("stuck", 20, 24, readings="power")]}),
    ("`zero`, all readings", "always", {"faults": [fault("zero", -2)]}),
    ("`zero`, all readings", "for a while", {"faults": [fault("zero", 20, 25)]}),
    ("`zero`, all readings", "for a while", {"faults": [fault("zero", 20, 25)], **NO_COUNTER}),
    ("`zero`, `power` alone", "3 s and longer", {"faults": [fault("zero", 20, 25, readings="power")]}),
    ("`zero`, `counter` alone", "for a while", {"faults": [fault("zero", 20, 25, readings="counter")]}),
    ("`zero`, `counter` alone", "always", {"faults": [fault("zero", -NEVER_S, readings="counter")]}),
    ("`counter_reset`", "once", {"faults": [fault("counter_reset", 20, 20)]}),
    ("`clock_step`", "once", {"faults": [fault("clock_step", 20, step_s=60.0)]}),
    ("`tenants`", "any overlap", {"tenants": TENANT}),
    ("`dropped_share`", "a tenth", {"sensors": {"nvml": {"dropped_share": 0.1}}}),
    ("`power_limit_w`", "reached", {"power_limit_w": 450.0}),
]


@pytest.fixture(scope="module")
def opens_s() -> float:
    return opening_s()


def table() -> dict[tuple[str, str], str]:
    """The last column by the first two; an empty first cell is that of the row above."""
    text = PAGE.read_text().split("## How the analysis responds to each fault")[1].split("\n## ")[0]
    found, above = {}, ""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith(("| fault", "|---")):
            first, when, code = (cell.strip() for cell in line.strip("|").split("|"))
            above = first or above
            found[above, when] = code
    return found


@pytest.mark.parametrize(("name", "when", "settings"), ROWS, ids=[f"{row[0]} {row[1]}" for row in ROWS])
def test_a_fault_gives_the_codes_of_its_row(name: str, when: str, settings: dict[str, Any], opens_s: float) -> None:
    (said,) = [code for (first, second), code in table().items() if first == name and second.startswith(when)]
    expected = set(re.findall(r"`([a-z_]+)`", said)) & set(CODES)
    settings = dict(settings)
    found = analysed(opens_s, *settings.pop("faults", []), **settings)
    codes = found.codes - {"steadiness_not_judged"}
    withheld = found.figure("energy_total_j")["value"] is None
    assert bool(codes & expected) == bool(expected), (codes, expected)
    if withheld:
        assert any(CODES[code].effect == "invalidates" for code in expected)
    else:
        assert codes == expected, "a figure that is given carries what the row says and nothing else"
        assert abs(found.error) < 0.01


def test_every_fault_there_is_has_a_row_and_every_code_in_it_is_one() -> None:
    rows = table()
    names = " ".join(name for name, _ in rows)
    for kind in get_args(SensorFault.model_fields["kind"].annotation):
        assert f"`{kind}`" in names
    for kind, readings in ((kind, of) for kind in ("error", "stuck", "zero") for of in ("all", "power", "counter")):
        assert f"`{kind}`, {'all readings' if readings == 'all' else f'`{readings}` alone'}" in names
    for name in [*ServerFaults.model_fields, *Faults.model_fields]:
        assert f"`{name}`" in names or name in ("stall_s", "sensors", "server"), name
    given = re.findall(r"`([a-z_]+)`", " ".join(rows.values()))
    assert set(given) <= set(CODES)
