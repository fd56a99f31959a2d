"""A load so far: rates of the last seconds, energy and tokens since the stage began; as lines and on a terminal."""

import io
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from inference_energy.acquire.load.live_counts import LiveCounts
from inference_energy.acquire.power.simulated import VARIABLE
from inference_energy.acquire.session.live_stats import LiveFigures, LiveStats, Progress, format_stats, labelled_power
from inference_energy.cli.load.progress_view import Screen, view_for


class Load:
    """A load on a fake clock."""

    def __init__(self, power: Mapping[str, float] | None = None) -> None:
        self.now_s = 100.0
        self.counts: LiveCounts | None = LiveCounts()
        self.power = power or {}
        self.stats = LiveStats(lambda: self.counts, None, lambda: labelled_power(self.power), lambda: self.now_s)

    def advance(self, seconds: float, *, offered: int = 0, ok: int = 0, tokens: int = 0) -> None:
        for _ in range(round(seconds / 0.25)):
            self.now_s += 0.25
            if self.counts is not None:
                self.counts.offered += offered
                self.counts.sent += offered
                self.counts.ok += ok
                self.counts.ended += ok
                self.counts.completion_tokens += tokens
            self.stats.tick()

    @property
    def figures(self) -> LiveFigures:
        figures = self.stats.figures()
        assert figures is not None
        return figures


def test_rates_are_those_of_the_last_seconds() -> None:
    load = Load()
    load.advance(20, offered=1, ok=1, tokens=10)
    load.advance(10, offered=4, ok=2, tokens=100)
    assert load.figures.offered_qps == pytest.approx(16)
    assert load.figures.achieved_qps == pytest.approx(8)
    assert load.figures.tokens_per_s == pytest.approx(400)
    assert load.figures.in_flight == 80


def test_a_closed_loop_offers_no_rate() -> None:
    load = Load()
    load.stats.begin(closed=True)
    load.advance(2, offered=1, ok=1)
    assert load.figures.offered_qps is None
    assert load.figures.achieved_qps == pytest.approx(4)


def test_energy_per_token_counts_each_part_once_from_the_stages_begin() -> None:
    load = Load({"gpu": 200.0, "gpu_memory": 50.0, "cpu": 100.0})
    load.advance(5, ok=1, tokens=100)
    load.stats.begin()
    load.advance(10, ok=1, tokens=50)
    # The first tick of a stage only says where it begins.
    assert load.figures.energy_per_token_j == pytest.approx(300 * 9.75 / (50 * 39))
    assert format_stats(load.figures)["power"] == "gpu 200.0 W + cpu (modelled) 100.0 W"
    assert "(modelled)" in format_stats(load.figures)["energy so far"]
    load.power = {"node": 700.0, "gpu": 200.0}
    load.stats.begin()
    load.advance(10, tokens=50)
    assert load.figures.energy_per_token_j == pytest.approx(700 * 9.75 / (50 * 39))
    assert format_stats(load.figures)["power"] == "node 700.0 W"
    assert "modelled" not in format_stats(load.figures)["energy so far"]


def test_all_power_of_a_virtual_node_is_called_simulated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    load = Load({"gpu": 200.0, "gpu_memory": 50.0})
    load.advance(5, ok=1, tokens=100)
    assert format_stats(load.figures)["power"] == "gpu (simulated) 200.0 W"
    assert "(simulated)" in format_stats(load.figures)["energy so far"]


def test_without_load_there_is_only_power() -> None:
    load = Load({"gpu": 60.0})
    load.counts = None
    load.advance(2)
    assert format_stats(load.figures) == {"power": "gpu 60.0 W"}
    load.power = {}
    assert load.stats.figures() is None


def test_no_energy_per_token_without_power_or_tokens() -> None:
    load = Load()
    load.advance(2, tokens=5)
    assert load.figures.energy_per_token_j is None
    load = Load({"gpu": 60.0})
    load.advance(2)
    assert load.figures.energy_per_token_j is None


def test_a_line_holds_all_of_it() -> None:
    lines: list[str] = []
    load = Load({"gpu": 200.0})
    progress = Progress("s", [("window", 60.0), ("stop", 5.0)], load.stats, lines.append)
    progress.begin("window")
    assert load.counts is not None
    for _ in range(100):
        load.counts.ttft.add(50_000_000)
    load.counts.failed = 3
    load.advance(5, offered=2, ok=2, tokens=20)
    progress.say("note")
    line = lines[-1]
    for part in ("[s] window", "of 1:00", "about 1:05 left", "offered 8.0 req/s", "achieved 8.0 req/s", "in flight 0"):
        assert part in line
    for part in ("failed 3", "output 80 tok/s", "TTFT p50/p99 5", "gpu 200.0 W", "J/token", "note"):
        assert part in line


def test_a_terminal_is_drawn_in_place_at_most_four_times_a_second() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100)
    load = Load({"gpu": 200.0})
    with view_for(console, "load-test", [("load-test", 10.0)], load.stats) as view:
        assert isinstance(view, Screen)
        view.begin("load-test")
        load.advance(5, offered=1, ok=1, tokens=5)
        before = written.tell()
        for _ in range(200):
            view.tick()
        drawn = written.getvalue()[before:].count("achieved")
        view.say("stopping")
    assert drawn <= 1
    assert "stopping" in written.getvalue()


def test_what_is_drawn() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100)
    load = Load({"cpu": 20.0})
    view = Screen(console, [("load-test", 10.0)], load.stats)
    with view:
        view.begin("load-test")
        load.advance(5, offered=1, ok=1, tokens=5)
        view._draw()
    for part in (
        "load-test",
        "of 0:10",
        "offered",
        "4.0 req/s",
        "20 tok/s",
        "cpu (modelled) 20.0 W",
        "J/token (modelled)",
    ):
        assert part in written.getvalue()
