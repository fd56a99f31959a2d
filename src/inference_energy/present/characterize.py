"""The page of a GPU's sensor profile: its numbers, the step response with the fitted window, and distributions."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from inference_energy.contracts.io import read_json
from inference_energy.errors import InputError
from inference_energy.present import page
from inference_energy.present.figures_text import NOT_GIVEN, UNTRUSTED_GRADES, scale_for, sentence, significant
from inference_energy.present.page import plot_json, write_page
from inference_energy.present.plots import shade_span
from inference_energy.present.tables import Table, TableCell

READINGS = {"average": "average power", "instant": "instant power"}
LABELS = {
    "update_period": "update period, by its value",
    "driver_timestamp_period": "update period, by the driver's timestamps",
    "resolution": "resolution",
    "idle_mean": "mean at idle",
    "idle_noise": "noise at idle",
    "window": "averaging window",
    "delay": "delay",
    "step": "step of the load",
    "ratio_to_counter": "integral / energy counter",
}
DIGITS = 4
BINS = 40


def write_profile_page(output: Path, profile: Path) -> None:
    """Write the page of a sensor profile.

    Raises:
        InputError: the file is missing or is not a profile.
    """
    content = read_json(profile)
    if not isinstance(content, dict) or not {"gpu", "grade", "readings", "calls", "series"} <= set(content):
        raise InputError(f"{profile}: is no profile of inference-energy characterize")
    series = content["series"]
    plots = {
        "step": plot_step_response(series),
        "intervals": plot_histograms(series.get("intervals_s", {}), "time between updates", "ms", log=False),
        "calls": plot_histograms(series.get("calls_us", {}), "cost of a call", "µs", log=True),
        "idle": plot_idle(series.get("idle", {})),
    }
    grade = str(content["grade"])
    write_page(
        output,
        "profile.html.j2",
        title=f"Power sensors of {content['gpu'].get('name') or 'a GPU'}",
        untrusted=[grade] if grade in UNTRUSTED_GRADES else [],
        facts=_facts(content),
        numbers=numbers_table(content),
        plots={name: plot_json(plot) for name, plot in plots.items() if plot is not None},
    )


def _facts(profile: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what was characterized, when and how."""
    gpu, load = profile["gpu"], profile.get("load")
    rows = [
        ("GPU", gpu.get("uuid")),
        ("driver", gpu.get("driver")),
        ("VBIOS", gpu.get("vbios")),
        ("power limit", number_text({"value": gpu.get("power_limit_w"), "unit": "W", "why": "it was not told"})),
        ("date", profile.get("date")),
        ("grade", profile["grade"]),
        ("toolkit", profile.get("toolkit_version")),
        ("duration", number_text(profile.get("duration"))),
        ("polls every", number_text(profile.get("poll_period"))),
        ("load", load["what"] if load else "none"),
    ]
    return [(name, str(text)) for name, text in rows if text is not None]


def numbers_table(profile: dict[str, Any]) -> Table:
    """Tabulate every number with its unit and interval, or the reason that it is missing."""
    table = Table(["quantity", "value", "range", "what the range is"])
    for reading, label in READINGS.items():
        _section(table, label, profile["readings"].get(reading, {}))
    _section(table, "energy counter", profile.get("counter", {}))
    table.heading("cost of a call")
    for call, cost in profile["calls"].items():
        _row(table, f"{call}, median", cost["median"])
        _row(table, f"{call}, 99th percentile", cost["p99"])
    table.heading("our own polls: how late they begin")
    for name, late in profile.get("polls", {}).get("lateness", {}).items():
        _row(table, name, late)
    return table


def number_text(number: dict[str, Any] | None) -> str:
    """Return a number of a profile with its unit, or why it is missing."""
    if number is None or number.get("value") is None:
        return f"{NOT_GIVEN}: {(number or {}).get('why', 'it was not measured')}"
    scale = scale_for([number["value"]], number["unit"])
    text = (
        f"{significant(number['value'] * scale.factor, DIGITS)} {'' if number['unit'] == '1' else scale.unit}".strip()
    )
    return text


def profile_lines(profile: dict[str, Any]) -> Iterator[str]:
    """Yield the most important numbers, one per line, for the terminal."""
    tag = f" ({profile['grade']})" if profile["grade"] in UNTRUSTED_GRADES else ""
    yield f"{profile['gpu'].get('name')} {profile['gpu'].get('uuid')}, driver {profile['gpu'].get('driver')}{tag}"
    for reading, label in [*READINGS.items(), ("counter", "energy counter")]:
        sensor = profile["readings"].get(reading) if reading != "counter" else profile["counter"]
        if "update_period" not in sensor:
            yield f"{label}: {sensor.get('why')}"
            continue
        for name, text in LABELS.items():
            if name in sensor:
                yield f"{label}, {text}: {_with_range(sensor[name])}"
    for call, cost in profile["calls"].items():
        yield f"{call}: {number_text(cost['median'])} median, {number_text(cost['p99'])} 99th percentile"


def plot_step_response(series: dict[str, Any]) -> go.Figure | None:
    """Plot the readings while the load switched, and the fitted model; None without a load."""
    response = series.get("step_response")
    if not response:
        return None
    plot = go.Figure(layout=page.layout("time since the first poll (s)", "power (W)", height=420))
    for index, (reading, label) in enumerate(READINGS.items()):
        color = page.SERIES[index]
        if reading in response:
            plot.add_scatter(
                x=response[reading]["time_s"],
                y=response[reading]["power_w"],
                name=label,
                mode="markers",
                marker={"size": 6, "color": color, "symbol": page.SYMBOLS[index]},
                hovertemplate="%{y:.1f} W at %{x:.2f} s",
            )
        if (model := response.get(f"{reading}_model")) is not None:
            plot.add_scatter(
                x=model["time_s"],
                y=model["power_w"],
                name=f"{label}, fitted",
                mode="lines",
                line={"color": color, "width": 1.5, "dash": page.DASHES[index]},
                hovertemplate="%{y:.1f} W",
            )
    edges, busy = response["edge_s"], response["busy"]
    for start_s, end_s, works in zip(edges, [*edges[1:], edges[-1] if edges else 0.0], busy, strict=True):
        if works:
            shade_span(plot, start_s, end_s, "phase_busy")
    plot.update_layout(showlegend=True)
    return plot


def plot_histograms(values: dict[str, list[float]], title: str, unit: str, *, log: bool) -> go.Figure | None:
    """Plot histograms of several series over common bins; None without values.

    Args:
        values: the series, in s or us.
        title: title of the x axis, without its unit.
        unit: the unit shown: `ms` for values in s, `µs` for values in us.
        log: whether bins and axis are logarithmic, for series of very different size.
    """
    factor = 1e3 if unit == "ms" else 1.0
    scaled = {name: np.array(samples) * factor for name, samples in values.items() if samples}
    if not scaled:
        return None
    everything = np.concatenate(list(scaled.values()))
    low, high = float(everything.min()), float(everything.max())
    if high <= low:
        low, high = 0.9 * low, 1.1 * high
    edges = np.geomspace(low, high, BINS + 1) if log and low > 0 else np.linspace(low, high, BINS + 1)
    plot = go.Figure(layout=page.layout(f"{title} ({unit})", "share"))
    for index, (name, samples) in enumerate(scaled.items()):
        # Rounding of the outermost edges must not lose the smallest and the largest value.
        counts, _ = np.histogram(np.clip(samples, edges[0], edges[-1]), edges)
        color, dash = page.series(index)
        plot.add_scatter(
            x=np.repeat(edges, 2),
            y=np.concatenate(([0.0], np.repeat(counts / samples.size, 2), [0.0])),
            name=escape(name),
            mode="lines",
            line={"color": color, "dash": dash, "width": 2},
            hovertemplate="%{y:.0%} at about %{x:.3g} " + unit,
        )
    plot.update_yaxes(tickformat=".0%")
    plot.update_xaxes(type="log" if log and low > 0 else "linear")
    plot.update_layout(showlegend=True)
    return plot


def plot_idle(values: dict[str, dict[str, list[float]]]) -> go.Figure | None:
    """Plot the readings at idle; None without any."""
    plot = go.Figure(layout=page.layout("time since the first poll (s)", "power (W)"))
    for index, (reading, trace) in enumerate(values.items()):
        if trace["time_s"]:
            color, dash = page.series(index)
            plot.add_scatter(
                x=trace["time_s"],
                y=trace["power_w"],
                name=escape(READINGS.get(reading, reading)),
                mode="lines",
                line={"color": color, "width": 1.5, "dash": dash, "shape": "hv"},
                hovertemplate="%{y:.2f} W",
            )
    plot.update_yaxes(rangemode="normal")
    plot.update_layout(showlegend=True)
    return plot if plot.data else None


def _section(table: Table, label: str, sensor: dict[str, Any]) -> None:
    table.heading(label + (f" ({sensor['call']})" if "call" in sensor else ""))
    if "update_period" not in sensor:
        table.add(TableCell(label, "head"), TableCell(f"{NOT_GIVEN}: {sensor.get('why')}", "missing", span=3))
    for name, text in LABELS.items():
        if name in sensor:
            _row(table, text, sensor[name])


def _row(table: Table, label: str, number: dict[str, Any]) -> None:
    if number.get("value") is None:
        reason = sentence(str(number.get("why")))
        table.add(TableCell(label, "head"), TableCell(f"{NOT_GIVEN}: {reason}", "missing", span=3))
        return
    bounds, meaning = _range(number)
    table.add(
        TableCell(label, "head"),
        TableCell(number_text(number), "number"),
        TableCell(bounds, "number"),
        TableCell(meaning, "text"),
    )


def _range(number: dict[str, Any]) -> tuple[str, str]:
    """Return bounds in the value's unit, and their meaning."""
    scale = scale_for([number["value"]], number["unit"])
    if "interval_95" in number:
        pair, meaning = number["interval_95"], "95 % interval"
    elif "p5" in number:
        pair, meaning = (number["p5"], number["p95"]), f"5th to 95th percentile of {number['count']}"
    else:
        why = number.get("interval_why")
        return "", f"no interval: {why}" if why else str(number.get("statistic", ""))
    return " to ".join(significant(bound * scale.factor, DIGITS) for bound in pair), meaning


def _with_range(number: dict[str, Any]) -> str:
    if number.get("value") is None:
        return number_text(number)
    bounds, meaning = _range(number)
    return (
        f"{number_text(number)} ({meaning}{': ' if bounds and meaning else ''}{bounds})"
        if bounds or meaning
        else number_text(number)
    )
