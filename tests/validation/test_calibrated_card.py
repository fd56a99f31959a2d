"""A card of the virtual bench whose gain is off, calibrated against the truth: its intervals shrink and hold it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_energy.acquire.power.calibrate.measure import PhaseMeans, record, save
from inference_energy.acquire.power.calibrate.york_fit import fit_line
from inference_energy.analysis.power_series import read_power_series, summed
from inference_energy.bench.offline.raw_files import write_session
from inference_energy.bench.offline.session import SimulatedSession, simulate
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts.calibration import channel_text, read_calibrations
from inference_energy.contracts.figure import json_values
from inference_energy.stages.chain import RawSession, session_parts
from inference_energy.validation.bench_trial import IMPACT
from inference_energy.validation.scenarios import MACHINE, SCENARIOS, SERVER, SESSION, TRIM_START_S
from tests.validation.test_bench_trials import with_card

pytestmark = pytest.mark.slow

GAIN, OFFSET_W = 1.04, 1.5
METER_W = 0.4
"""Standard deviation of the meter's means; the meter has no gain of its own."""

CONFIG = AnalysisConfig(trim_start_s=TRIM_START_S)
EXACT = CONFIG.model_copy(update={"uncertainty": CONFIG.uncertainty.model_copy(update={"meter_gain": 0.0})})


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimulatedSession, RawSession, Path]:
    """A session on that card, and the file of its calibration."""
    folder = tmp_path_factory.mktemp("card")
    scenario = with_card(SCENARIOS[0], gain=GAIN, offset_w=OFFSET_W)
    session = simulate(scenario.plan(3), scenario.node(3))
    write_session(session, folder)
    files = RawSession.below(folder, MACHINE, SESSION, SERVER)
    return session, files, _compared(session, files, folder / "calibration.json")


def _compared(session: SimulatedSession, files: RawSession, path: Path) -> Path:
    """What `calibrate` does, with the truth as the meter: mean powers over stretches of idle and load, and a line."""
    random = np.random.default_rng(5)
    (channel,) = summed(read_power_series(files.power, CONFIG.power_reading))
    means = []
    for row in session.phases:
        start_ns, end_ns = int(str(row["start_ns"])) + 2 * 10**9, int(str(row["end_ns"])) - 10**9
        if row["phase"] in ("loaded_idle", "window", "post_idle", "warmup") and end_ns - start_ns > 4 * 10**9:
            own_w = channel.energy_j(start_ns, end_ns) / ((end_ns - start_ns) / 1e9)
            meter_w = session.truth.power_w(start_ns, end_ns) + METER_W * random.standard_normal()
            # A counter lacks up to 100 ms at each edge.
            u_own_w = own_w * 0.1 / np.sqrt(6) / ((end_ns - start_ns) / 1e9)
            means.append(PhaseMeans(str(row["phase"]), own_w, float(u_own_w), meter_w, METER_W))
    columns = np.array([dataclasses.astuple(mean)[1:] for mean in means]).T
    line = fit_line(*columns)
    name = channel_text(channel.source, channel.device, channel.domain)
    meter = {"name": "truth", "grade": "simulated", "devices": ["bench"]}
    save(path, channel.device, record(line, means, [name], meter, "simulated"))
    return path


def figures(card: tuple[SimulatedSession, RawSession, Path], config: AnalysisConfig, *, calibrated: bool) -> Any:
    _, files, path = card
    energy: dict[str, Any] = json_values(session_parts(files, config, IMPACT, path if calibrated else None).energy)
    return energy


def test_the_line_is_the_inverse_of_the_cards_error(card: tuple[SimulatedSession, RawSession, Path]) -> None:
    (entry,) = read_calibrations(card[2]).entries.values()
    assert entry.gain == pytest.approx(1 / GAIN, abs=3 * entry.u_gain + 1e-4)
    assert entry.offset_w == pytest.approx(-OFFSET_W / GAIN, abs=3 * entry.u_offset_w)
    assert entry.u_gain < 0.004


def test_calibrated_intervals_hold_the_truth_and_are_much_narrower(
    card: tuple[SimulatedSession, RawSession, Path],
) -> None:
    session = card[0]
    before, after = (figures(card, EXACT, calibrated=yes) for yes in (False, True))
    cold_w = session.truth.power_w(*session.cold_ns)
    assert before["windows"]
    for name, window in after["windows"].items():
        start_ns, end_ns = window["start_ns"], window["end_ns"]
        true_j = session.truth.energy_j(start_ns, end_ns)
        above_j = true_j - cold_w * (end_ns - start_ns) / 1e9
        for basis, truth in (("total", true_j), ("active", above_j)):
            new = window["figures"][f"energy_{basis}_j"]
            old = before["windows"][name]["figures"][f"energy_{basis}_j"]
            assert new["interval_95"][0] < truth < new["interval_95"][1]
            assert abs(old["value"] / truth - 1) > 0.03
            assert abs(new["value"] / truth - 1) < 0.006
            assert new["budget"]["expanded"] < old["budget"]["expanded"] / 3
    low_w, high_w = after["idle"]["cold_power_w"]["interval_95"]
    assert low_w < cold_w < high_w


def test_the_meters_own_gain_widens_them_by_default(card: tuple[SimulatedSession, RawSession, Path]) -> None:
    exact, stated = (figures(card, config, calibrated=True) for config in (EXACT, CONFIG))
    for name, window in stated["windows"].items():
        wide, narrow = (w["figures"]["energy_total_j"] for w in (window, exact["windows"][name]))
        assert wide["value"] == narrow["value"]
        assert wide["budget"]["expanded"] > 0.0058 * 1.9 * wide["value"]
        assert wide["budget"]["expanded"] > narrow["budget"]["expanded"]
