"""`analyze` on power logs of other tools: the right energy, or a refusal that says what was found and where."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from foreign_logs import (
    T0,
    Folder,
    flicker,
    log_of,
    one_device,
    rows_of_devices,
)


@pytest.fixture
def logs(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.mark.parametrize(
    ("head", "name_of"),
    [
        ("index", str),
        ("gpu", str),
        ("device", lambda g: f"cuda:{g}"),
        ("uuid", lambda g: f"GPU-{g:08x}"),
        ("gpu_id", str),
        ("minor", str),
        ("card", lambda g: f"card{g}"),
        ("name", lambda g: f"NVIDIA H100 #{g}"),
        ("pci.bus_id", lambda g: f"00000000:{g:02x}:00.0"),
        ("gpuIndex", str),
        ("host,gpu", lambda g: f"node{g // 4},{g % 4}"),
        ("gpu,source", lambda g: f"{g},nvml"),
    ],
)
@pytest.mark.parametrize("stagger_s", [0.0125, 0.001, 0.0])
def test_the_power_of_devices_in_rows_adds_up(logs, head, name_of, stagger_s):
    rows = rows_of_devices(name_of, stagger_s=stagger_s)
    if stagger_s == 0.0:  # equal times to the last digit
        rows = [f"{T0 + 0.1 * (i // 8):.1f},{row.partition(',')[2]}" for i, row in enumerate(rows)]
    assert logs.energy_j(log_of(*rows, head=f"time,{head},power_W")) == pytest.approx(8 * 300 * 20, rel=2e-3)


def test_devices_in_blocks_one_after_the_other_add_up(logs):
    rows = sorted(rows_of_devices(str), key=lambda row: row.split(",")[1])
    assert logs.energy_j(log_of(*rows, head="time,index,power_W")) == pytest.approx(48_000, rel=2e-3)


def test_the_sum_says_by_which_column_it_was_made(logs):
    document = logs.analyze(log_of(*rows_of_devices(str), head="time,index,power_W"))
    assert any("8 devices" in text and "index" in text for text in document.assumptions)


@pytest.mark.parametrize(
    ("head", "factor"),
    [
        ("gpu0_power_w,gpu1_power_w", 1),
        ("gpu_0_power_W,gpu_1_power_W", 1),
        ("power_w_gpu0,power_w_gpu1", 1),
        ("GPU0 Power (mW),GPU1 Power (mW)", 1000),
        ("node1_power,node2_power", 1),
        ("gpu_power_w,cpu_power_w", 1),
    ],
)
def test_power_in_a_column_each_adds_up(logs, head, factor):
    rows = [f"{T0 + 0.1 * i:.1f},{factor * flicker(300, i)},{factor * flicker(100, i + 1)}" for i in range(320)]
    assert logs.energy_j(log_of(*rows, head=f"time,{head}")) == pytest.approx(8000, rel=2e-3)


def test_columns_filled_in_rows_of_their_own_add_up(logs):
    rows = [
        f"{T0 + 0.05 * i:.2f},{'' if i % 2 else flicker(300, i)},{flicker(100, i) if i % 2 else ''}" for i in range(640)
    ]
    assert logs.energy_j(log_of(*rows, head="time,gpu0_power_w,gpu1_power_w")) == pytest.approx(8000, rel=2e-3)


@pytest.mark.parametrize(("total", "value"), [(400, 8000), (300, None)])
def test_a_total_beside_its_parts_is_not_added_to_them(logs, total, value):
    rows = [f"{T0 + 0.1 * i:.1f},{total + 2 * (i % 3)},{300 + i % 3},{100 + i % 3}" for i in range(320)]
    text = log_of(*rows, head="time,total_power_w,gpu0_power_w,gpu1_power_w")
    if value is None:
        assert "total_power_w" in logs.refusal(text)
    else:
        assert logs.energy_j(text) == pytest.approx(value, rel=1e-2)


def test_columns_that_contain_each_other_are_refused_or_chosen_by_the_boundary(logs):
    rows = [f"{T0 + 0.1 * i:.1f},{700 + i % 3},{300 + i % 3}" for i in range(320)]
    text = log_of(*rows, head="time,node_power_w,gpu0_power_w")
    assert "node_power_w, gpu0_power_w" in logs.refusal(text)
    assert logs.energy_j(text, stated_boundary="gpu") == pytest.approx(301 * 20, rel=1e-3)
    assert logs.energy_j(text, stated_boundary="node") == pytest.approx(701 * 20, rel=1e-3)


@pytest.mark.parametrize("head", ["time,power.draw [W],power.limit [W],enforced.power.limit [W],power.max_limit [W]"])
def test_limits_are_no_power(logs, head):
    rows = [f"{T0 + 0.1 * i:.1f}, {flicker(300, i):.2f} W, 700.00 W, 700.00 W, 700.00 W" for i in range(320)]
    assert logs.energy_j(log_of(*rows, head=head)) == pytest.approx(6000, rel=1e-3)


def test_average_and_instant_of_one_device_are_not_added(logs):
    rows = [f"{T0 + 0.1 * i:.1f}, {flicker(300, i):.2f} W, {flicker(250, i):.2f} W" for i in range(320)]
    head = "time,power.draw.average [W],power.draw.instant [W]"
    assert logs.energy_j(log_of(*rows, head=head)) == pytest.approx(6000, rel=1e-3)


@pytest.mark.parametrize("stagger_s", [0.0, 0.002])
def test_several_rows_at_a_time_without_a_device_are_refused(logs, stagger_s):
    rows = [f"{T0 + 0.1 * i + stagger_s * g:.3f},{flicker(300, i + g)}" for i in range(320) for g in range(4)]
    assert "several devices" in logs.refusal(log_of(*rows))


def test_an_index_of_two_machines_without_their_names_is_refused(logs):
    rows = [f"{T0 + 0.1 * i:.1f},{g},{flicker(300 + 9 * h, i)}" for i in range(320) for h in range(2) for g in range(2)]
    said = logs.refusal(log_of(*rows, head="time,index,power_W"))
    assert "same time" in said and "index" in said


def test_a_row_that_is_there_twice_counts_once(logs):
    rows = [f"{T0 + 0.1 * i:.1f},{g},{flicker(300, i)}" for i in range(320) for g in range(2)]
    text = log_of(*itertools.chain.from_iterable((row, row) for row in rows), head="time,index,power_W")
    assert logs.energy_j(text) == pytest.approx(12_000, rel=1e-3)


def test_an_unknown_column_that_divides_rows_like_devices_is_refused_by_name(logs):
    rows = rows_of_devices(lambda g: f"thing{g}", devices=2, stagger_s=0.05)
    assert "column probe" in logs.refusal(log_of(*rows, head="time,probe,power_W"))


@pytest.mark.parametrize("column", ["index", "gpu", "id", "#", "Unnamed: 0", "gpu_util", "step"])
def test_numbers_that_name_no_device_do_not_multiply_the_power(logs, column):
    draw = random.Random(3)
    numbers = {"gpu": lambda i: f"{90 + draw.random():.3f}", "gpu_util": lambda i: draw.randint(80, 100)}.get(
        column, int
    )
    rows = [f"{T0 + 0.1 * i:.1f},{numbers(i)},{flicker(300, i)}" for i in range(320)]
    assert logs.energy_j(log_of(*rows, head=f"time,{column},power_W")) == pytest.approx(6000, rel=1e-3)


def test_a_column_called_gpu_that_holds_utilization_is_refused(logs):
    draw = random.Random(3)
    rows = [f"{T0 + 0.1 * i:.1f},{draw.randint(80, 100)},{flicker(300, i)}" for i in range(320)]
    assert "column(s) gpu" in logs.refusal(log_of(*rows, head="time,gpu,power_W"))


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (lambda i, g: g or i > 70, r"index 0"),
        (lambda i, g: g or i < 200, r"index 0"),
        (lambda i, g: g or i in (60, 61), r"index"),
    ],
)
def test_a_device_that_does_not_cover_the_requests_is_refused_by_name(logs, kept, said):
    rows = [f"{T0 + 0.1 * i:.1f},{g},{flicker(300, i)}" for i in range(320) for g in range(3) if kept(i, g)]
    assert said in logs.refusal(log_of(*rows, head="time,index,power_W"))


def test_a_device_with_a_hole_gives_no_energy(logs):
    rows = [f"{T0 + 0.1 * i:.1f},{g},{flicker(300, i)}" for i in range(320) for g in range(3) if g or not 90 < i < 140]
    figure = logs.analyze(log_of(*rows, head="time,index,power_W")).figures["energy_total_j"]
    assert figure.value is None
    assert [reason.code for reason in figure.reasons] == ["gap"]
    assert "index 0" in figure.reasons[0].detail


def test_a_part_without_any_power_is_refused(logs):
    rows = [f"{T0 + 0.1 * i:.1f},{flicker(300, i)},[N/A]" for i in range(320)]
    assert "gpu1_power_w" in logs.refusal(log_of(*rows, head="time,gpu0_power_w,gpu1_power_w"))


@pytest.mark.parametrize(
    ("head", "options", "boundary", "has_interval"),
    [
        ("time,power_W", {}, "unknown", False),
        ("time,power_W", {"stated_boundary": "gpu"}, "gpu", True),
        ("time,power_W", {"stated_boundary": "cpu_package+gpu"}, "gpu + cpu_package", True),
        ("time,power_W", {"stated_boundary": "wall"}, "wall", False),
        ("time,power_W", {"stated_boundary": "node"}, "node", False),
        ("time,power_W", {"stated_boundary": "wall", "sensor_gain": 0.01}, "wall", True),
        ("time,power_W", {"sensor_gain": 0.01}, "unknown", True),
        ("time,power.draw [W]", {}, "gpu", True),
        ("time,gpu_power_w", {}, "gpu", True),
        ("time,wall_power_w", {}, "wall", False),
    ],
)
def test_the_boundary_is_as_stated_and_only_known_sensors_have_an_error(logs, head, options, boundary, has_interval):
    document = logs.analyze(one_device(head=head), **options)
    figure = document.figures["energy_total_j"]
    assert (document.boundary, figure.boundary) == (boundary, boundary)
    assert (figure.interval_95 is not None) == has_interval
    codes = [reason.code for reason in figure.reasons]
    assert ("sensor_error_unknown" in codes) == (not has_interval)
    assert ("not known" in document.uncertainty) == (not has_interval)
    assert document.figures["energy_total_per_output_token_j"].interval_95 is None
    assert ("no interval for active figures" in document.uncertainty) == has_interval
    assert ("per token or request (nothing tells" in document.uncertainty) == has_interval
    if options.get("sensor_gain"):
        terms = {term.name: term.u for term in figure.budget.terms}
        assert terms["sensor gain"] == pytest.approx(60, rel=1e-2) and "sensor offset" not in terms


@pytest.mark.parametrize(
    ("source", "boundary"),
    [("nvml", "gpu"), ("nvml+rapl", "gpu + cpu_package + dram"), ("smart-plug", "node"), ("kill-a-watt", "unknown")],
)
def test_the_boundary_is_that_of_the_source_in_the_log(logs, source, boundary):
    rows = [f"{T0 + 0.1 * i:.1f},{flicker(300, i)},{source}" for i in range(320)]
    text = log_of(*rows, head="time,power_W,source")
    assert logs.analyze(text).boundary == boundary
    if boundary != "unknown":
        assert "says itself" in logs.refusal(text, stated_boundary="wall")


@pytest.mark.parametrize(("stated", "said"), [("gpus", "gpus"), ("gpu+wall", "gpu+wall"), ("", "none of")])
def test_a_boundary_that_is_none_is_refused(logs, stated, said):
    assert said in logs.refusal(one_device(), stated_boundary=stated)


@pytest.mark.parametrize(("first_s", "last_s"), [(0.0, 24.95), (5.05, 32.0), (5.05, 24.95)])
def test_a_log_that_ends_within_a_sampling_period_is_enough(logs, first_s, last_s):
    times = np.arange(first_s, last_s + 1e-9, 0.1)
    power = log_of(*(f"{T0 + at:.3f},{flicker(300, i)}" for i, at in enumerate(times)))
    figure = logs.analyze(power, stated_boundary="gpu").figures["energy_total_j"]
    assert figure.value == pytest.approx(6000, rel=1e-3)
    assert "edge_held" in [reason.code for reason in figure.reasons]
    assert "held edges" in [term.name for term in figure.budget.terms]


@pytest.mark.parametrize(("first_s", "last_s"), [(0.0, 24.85), (5.15, 32.0)])
def test_a_log_that_ends_earlier_is_not(logs, first_s, last_s):
    times = np.arange(first_s, last_s + 1e-9, 0.1)
    assert "are missing at" in logs.refusal(log_of(*(f"{T0 + at:.3f},{flicker(300, i)}" for i, at in enumerate(times))))


@pytest.mark.parametrize(
    ("head", "cell"),
    [
        ("power_mw", lambda w: f"{w * 1000:.0f}"),
        ("power_mW", lambda w: f"{w * 1000:.0f}"),
        ("power.draw [mW]", lambda w: f"{w * 1000:.0f}"),
        ("power_kw", lambda w: f"{w / 1000:.5f}"),
        ("power.draw [W]", lambda w: f"{w:.2f} W"),
        ("power", lambda w: f"{w:.2f} W"),
        ("power", lambda w: f"{w * 1000:.0f} mW"),
        ("Watts", lambda w: f"{w:.2f}"),
        ("power_W", lambda w: f"{w:.6e}"),
        ("power_uw", lambda w: f"{w * 1e6:.0f}"),
    ],
)
def test_units_of_power(logs, head, cell):
    rows = [f"{T0 + 0.1 * i:.1f},{cell(flicker(300, i))}" for i in range(320)]
    assert logs.energy_j(log_of(*rows, head=f"time,{head}")) == pytest.approx(6000, rel=1e-3)


@pytest.mark.parametrize(
    ("head", "cells", "said"),
    [
        ("power_mw", "300.00 W", "another unit"),
        ("power_W", "300 VA", "a unit that is none of"),
        ("power_MW", "300000", "MW"),
        ("power_W", "300000", "kW that can be"),
        ("power_W", "1e300", "kW that can be"),
        ("power_W", "inf", "infinite"),
        ("power_W", "1e400", "infinite"),
        ("power_W", '"1,234"', "comma"),
        ("power_W", '"1,234.5"', "not a number"),
        ("power_W", "1_000", "not a number"),
        ("power_W", "much", "not a number"),
        ("power_W", "٣٠٠", "not a number"),
        ("power_W", "", "no row has both"),
        ("power_W", "nan", "no row has both"),
        ("energy_j", "300", "lacks the column(s) power_W"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_cells_that_are_no_power_are_refused_with_column_and_line(logs, head, cells, said):
    rows = [f"{T0 + 0.1 * i:.1f},{cells}" for i in range(320)]
    message = logs.refusal(log_of(*rows, head=f"time,{head}"))
    assert said in message
    assert len(message) < 500


def test_power_of_zero_gives_no_energy(logs):
    rows = [f"{T0 + 0.1 * i:.1f},0" for i in range(320)]
    assert [reason.code for reason in logs.analyze(log_of(*rows)).figures["energy_total_j"].reasons] == ["stuck_sensor"]


def test_negative_power_is_refused_with_its_line(logs):
    rows = [f"{T0 + 0.1 * i:.1f},-300" for i in range(320)]
    assert "power.csv:2: column power_W has mostly negative power" in logs.refusal(log_of(*rows))


@pytest.mark.parametrize("spike", ["-300", "3700000", "1e300"])
def test_a_few_readings_that_cannot_be_are_withheld_and_counted(logs, spike):
    rows = [f"{T0 + 0.1 * i:.1f},{spike if i in (80, 150) else flicker(300, i)}" for i in range(320)]
    for boundary in ("gpu", "wall"):
        figure = logs.analyze(log_of(*rows), stated_boundary=boundary).figures["energy_total_j"]
        assert figure.value == pytest.approx(6000, rel=1e-2)
        assert "readings_withheld" in [reason.code for reason in figure.reasons]


def test_power_that_is_mostly_empty_gives_no_energy(logs):
    rows = [f"{T0 + 0.1 * i:.1f},{flicker(300, i) if i % 3 else '[N/A]'}" for i in range(320)]
    assert logs.analyze(log_of(*rows)).figures["energy_total_j"].value is None


def test_rows_of_domains_that_contain_each_other_are_not_added(logs):
    rows = [
        f"{T0 + 0.1 * i:.1f},GPU-{g},{domain},{flicker(level, i)}"
        for i in range(320)
        for g in range(2)
        for domain, level in (("gpu", 300), ("gpu_memory", 60))
    ]
    text = log_of(*rows, head="time,device,domain,power_W")
    document = logs.analyze(text)
    assert document.figures["energy_total_j"].value == pytest.approx(12_000, rel=1e-3)
    assert document.boundary == "gpu"
    assert "column domain" in logs.refusal(text.replace("gpu_memory", "hbm"))


def test_two_sources_of_one_part_are_not_added(logs):
    rows = [f"{T0 + 0.1 * i:.1f},{name},{flicker(300, i)}" for i in range(320) for name in ("nvml", "dcgm")]
    assert "column source" in logs.refusal(log_of(*rows, head="time,source,power_W"))
    mixed = log_of(*rows, head="time,source,power_W").replace("dcgm", "rapl")
    assert logs.energy_j(mixed) == pytest.approx(12_000, rel=1e-3)


@pytest.mark.parametrize(
    ("whole", "part"),
    [("package-0", "core"), ("intel-rapl:0", "intel-rapl:0:0"), ("psys", "package-0"), ("total", "gpu0")],
)
def test_zones_that_contain_each_other_are_not_added(logs, whole, part):
    rows = [
        f"{T0 + 0.1 * i:.1f},{name},{flicker(level, i)}"
        for i in range(320)
        for name, level in ((whole, 100), (part, 60))
    ]
    for head in ("time,zone,power_W", "time,name,power_W"):
        assert "may contain each other" in logs.refusal(log_of(*rows, head=head))


@pytest.mark.parametrize("boundary", ["gpu", "wall", None])
def test_readings_further_apart_than_all_requests_take_are_refused(logs, boundary):
    text = log_of(f"{T0},50", f"{T0 + 40},700")
    assert "40 s apart" in logs.refusal(text, stated_boundary=boundary)


@pytest.mark.parametrize("head", ["time,power_W", "time,gpu_power_W"])
def test_one_reading_far_above_all_others_is_withheld(logs, head):
    lines = one_device(head=head).splitlines()
    lines[100] = lines[100].split(",")[0] + ",9000"
    figure = logs.analyze("\n".join(lines) + "\n").figures["energy_total_j"]
    assert figure.value == pytest.approx(6000, rel=1e-3)
    assert "readings_withheld" in [reason.code for reason in figure.reasons]


@pytest.mark.parametrize("word", ["N/A", "", "[Unknown Error]", "nan"])
def test_readings_that_the_sensor_could_not_give_are_counted(logs, word):
    rows = [f"{T0 + 0.1 * i:.1f},{word if i % 50 == 7 else flicker(300, i)}" for i in range(320)]
    document = logs.analyze(log_of(*rows))
    assert document.figures["energy_total_j"].value == pytest.approx(6000, rel=2e-3)
    assert any(text.startswith("7 of 320 rows hold no power in power_W") for text in document.assumptions)


def test_codecarbons_modelled_columns_are_not_taken_for_measured(logs):
    rows = [f"{T0 + 0.1 * i:.1f},{flicker(40, i)},{flicker(300, i)},20" for i in range(320)]
    log = log_of(*rows, head="timestamp,cpu_power,gpu_power,ram_power")
    assert "ram_power, and often its cpu_power, are modelled" in logs.refusal(log)
    assert logs.energy_j(log, stated_boundary="gpu") == pytest.approx(6000, rel=2e-3)
    assert logs.analyze(log, stated_boundary="gpu").boundary == "gpu"
