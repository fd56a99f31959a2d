"""The page of a GPU's sensor profile: its numbers, the step response with the fitted window, and distributions.

The page of a GPU's sensor profile: its numbers, the step response with the fitted window, and distributions.

What the power of each session was calibrated with: sentences for the page, facts for the method.
"""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from inference_energy.contracts.io import read_json
from inference_energy.errors import InputError
from inference_energy.present import page
from inference_energy.present.figures_text import NOT_GIVEN, UNTRUSTED_GRADES, scale_for, sentence, significant
from inference_energy.present.method_facts import Facts
from inference_energy.present.page import figure_json, write_page
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


def write_characterisation_page(output: Path, profile: Path) -> None:
    """Write the page of a profile.

    Raises:
        InputError: the file is missing, or is no profile.
    """
    content = read_json(profile)
    if not isinstance(content, dict) or not {"gpu", "grade", "readings", "calls", "series"} <= set(content):
        raise InputError(f"{profile}: is no profile of inference-energy characterize")
    series = content["series"]
    figures = {
        "step": step_figure(series),
        "intervals": histogram_figure(series.get("intervals_s", {}), "time between updates", "ms", log=False),
        "calls": histogram_figure(series.get("calls_us", {}), "cost of a call", "µs", log=True),
        "idle": idle_figure(series.get("idle", {})),
    }
    grade = str(content["grade"])
    write_page(
        output,
        "characterisation.html.j2",
        title=f"Power sensors of {content['gpu'].get('name') or 'a GPU'}",
        untrusted=[grade] if grade in UNTRUSTED_GRADES else [],
        known=facts(content),
        numbers=numbers(content),
        figures={name: figure_json(figure) for name, figure in figures.items() if figure is not None},
    )


def facts(profile: dict[str, Any]) -> list[tuple[str, str]]:
    """What was characterised, when and how."""
    gpu, load = profile["gpu"], profile.get("load")
    rows = [
        ("GPU", gpu.get("uuid")),
        ("driver", gpu.get("driver")),
        ("VBIOS", gpu.get("vbios")),
        ("power limit", shown({"value": gpu.get("power_limit_w"), "unit": "W", "why": "it was not told"})),
        ("date", profile.get("date")),
        ("grade", profile["grade"]),
        ("toolkit", profile.get("toolkit_version")),
        ("duration", shown(profile.get("duration"))),
        ("polls every", shown(profile.get("poll_period"))),
        ("load", load["what"] if load else "none"),
    ]
    return [(name, str(text)) for name, text in rows if text is not None]


def numbers(profile: dict[str, Any]) -> Table:
    """Every number with its unit and interval, and a reason in place of those that cannot be given."""
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


def shown(number: dict[str, Any] | None) -> str:
    """A number of a profile in words: with its unit, or why there is none."""
    if number is None or number.get("value") is None:
        return f"{NOT_GIVEN}: {(number or {}).get('why', 'it was not measured')}"
    scale = scale_for([number["value"]], number["unit"])
    text = (
        f"{significant(number['value'] * scale.factor, DIGITS)} {'' if number['unit'] == '1' else scale.unit}".strip()
    )
    return text


def lines(profile: dict[str, Any]) -> Iterator[str]:
    """The most important numbers, one a line, for the terminal."""
    tag = f" ({profile['grade']})" if profile["grade"] in UNTRUSTED_GRADES else ""
    yield f"{profile['gpu'].get('name')} {profile['gpu'].get('uuid')}, driver {profile['gpu'].get('driver')}{tag}"
    for reading, label in [*READINGS.items(), ("counter", "energy counter")]:
        found = profile["readings"].get(reading) if reading != "counter" else profile["counter"]
        if "update_period" not in found:
            yield f"{label}: {found.get('why')}"
            continue
        for name, text in LABELS.items():
            if name in found:
                yield f"{label}, {text}: {_with_range(found[name])}"
    for call, cost in profile["calls"].items():
        yield f"{call}: {shown(cost['median'])} median, {shown(cost['p99'])} 99th percentile"


def step_figure(series: dict[str, Any]) -> go.Figure | None:
    """Readings while the load switched, with the fitted model; None without a load."""
    response = series.get("step_response")
    if not response:
        return None
    figure = go.Figure(layout=page.layout("time since the first poll (s)", "power (W)", height=420))
    for index, (reading, label) in enumerate(READINGS.items()):
        colour = page.SERIES[index]
        if reading in response:
            figure.add_scatter(
                x=response[reading]["time_s"],
                y=response[reading]["power_w"],
                name=label,
                mode="markers",
                marker={"size": 6, "color": colour, "symbol": page.SYMBOLS[index]},
                hovertemplate="%{y:.1f} W at %{x:.2f} s",
            )
        if (model := response.get(f"{reading}_model")) is not None:
            figure.add_scatter(
                x=model["time_s"],
                y=model["power_w"],
                name=f"{label}, fitted",
                mode="lines",
                line={"color": colour, "width": 1.5, "dash": page.DASHES[index]},
                hovertemplate="%{y:.1f} W",
            )
    edges, busy = response["edge_s"], response["busy"]
    for start_s, end_s, works in zip(edges, [*edges[1:], edges[-1] if edges else 0.0], busy, strict=True):
        if works:
            figure.add_shape(
                type="rect",
                xref="x",
                yref="paper",
                x0=start_s,
                x1=end_s,
                y0=0,
                y1=1,
                fillcolor=page.LIGHT["phase_busy"],
                line_width=0,
                layer="below",
            )
    figure.update_layout(showlegend=True)
    return figure


def histogram_figure(values: dict[str, list[float]], title: str, unit: str, *, log: bool) -> go.Figure | None:
    """Histograms of several series over common bins; None where there is nothing.

    Args:
        values: the series, in s or us.
        title: of the x axis, without its unit.
        unit: shown for the values, which are multiplied to fit it: `ms` for s, `µs` for us.
        log: whether bins and axis are logarithmic, as for series of very different size.
    """
    factor = 1e3 if unit == "ms" else 1.0
    scaled = {name: np.array(each) * factor for name, each in values.items() if each}
    if not scaled:
        return None
    everything = np.concatenate(list(scaled.values()))
    low, high = float(everything.min()), float(everything.max())
    if high <= low:
        low, high = 0.9 * low, 1.1 * high
    edges = np.geomspace(low, high, BINS + 1) if log and low > 0 else np.linspace(low, high, BINS + 1)
    figure = go.Figure(layout=page.layout(f"{title} ({unit})", "share"))
    for index, (name, each) in enumerate(scaled.items()):
        # The outermost edges are results of arithmetic, and must not lose the smallest and the largest value.
        counts, _ = np.histogram(np.clip(each, edges[0], edges[-1]), edges)
        colour, dash = page.series(index)
        figure.add_scatter(
            x=np.repeat(edges, 2),
            y=np.concatenate(([0.0], np.repeat(counts / each.size, 2), [0.0])),
            name=escape(name),
            mode="lines",
            line={"color": colour, "dash": dash, "width": 2},
            hovertemplate="%{y:.0%} at about %{x:.3g} " + unit,
        )
    figure.update_yaxes(tickformat=".0%")
    figure.update_xaxes(type="log" if log and low > 0 else "linear")
    figure.update_layout(showlegend=True)
    return figure


def idle_figure(values: dict[str, dict[str, list[float]]]) -> go.Figure | None:
    """The readings at idle; None where there are none."""
    figure = go.Figure(layout=page.layout("time since the first poll (s)", "power (W)"))
    for index, (reading, trace) in enumerate(values.items()):
        if trace["time_s"]:
            colour, dash = page.series(index)
            figure.add_scatter(
                x=trace["time_s"],
                y=trace["power_w"],
                name=escape(READINGS.get(reading, reading)),
                mode="lines",
                line={"color": colour, "width": 1.5, "dash": dash, "shape": "hv"},
                hovertemplate="%{y:.2f} W",
            )
    figure.update_yaxes(rangemode="normal")
    figure.update_layout(showlegend=True)
    return figure if figure.data else None


def _section(table: Table, label: str, found: dict[str, Any]) -> None:
    table.heading(label + (f" ({found['call']})" if "call" in found else ""))
    if "update_period" not in found:
        table.add(TableCell(label, "head"), TableCell(f"{NOT_GIVEN}: {found.get('why')}", "missing", span=3))
    for name, text in LABELS.items():
        if name in found:
            _row(table, text, found[name])


def _row(table: Table, label: str, number: dict[str, Any]) -> None:
    if number.get("value") is None:
        reason = sentence(str(number.get("why")))
        table.add(TableCell(label, "head"), TableCell(f"{NOT_GIVEN}: {reason}", "missing", span=3))
        return
    bounds, meaning = _range(number)
    table.add(
        TableCell(label, "head"),
        TableCell(shown(number), "number"),
        TableCell(bounds, "number"),
        TableCell(meaning, "text"),
    )


def _range(number: dict[str, Any]) -> tuple[str, str]:
    """Bounds in the value's own unit, and what they are."""
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
        return shown(number)
    bounds, meaning = _range(number)
    return (
        f"{shown(number)} ({meaning}{': ' if bounds and meaning else ''}{bounds})"
        if bounds or meaning
        else shown(number)
    )


def calibration_texts(sessions: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence for each entry that was applied, and one for each that was not; each once.

    Args:
        sessions: those of the summary.
    """
    texts = []
    for row in sessions:
        calibration = row.get("calibration") or {}
        texts += [
            f"{row['session']}: the power of {entry['name']} is calibrated against {entry['meter']}, "
            f"{entry['date'][:10]}: {_line(entry)}."
            for entry in calibration.get("applied", [])
        ]
        texts += [f"{row['session']}: {note['detail']}" for note in calibration.get("notes", [])]
    return list(dict.fromkeys(texts))


def calibration_facts(row: dict[str, Any]) -> list[Facts]:
    """The calibration of one session, as a list of facts; none where the configuration names no file.

    Args:
        row: the session in the summary.
    """
    calibration = row.get("calibration")
    if not calibration:
        return []
    known = [
        (
            str(entry["name"]),
            f"{_line(entry)}; against {entry['meter']} ({entry['grade']}), {entry['date']}, {entry['phases']} phases, "
            f"chi² per degree of freedom {entry['chi2_per_dof']:.2g}; sum of {', '.join(entry['channels'])}",
        )
        for entry in calibration["applied"]
    ]
    missing = [("not applied", str(note["detail"])) for note in calibration["notes"]]
    return [Facts("Calibration", [*known, ("sha256 of the file", str(calibration["sha256"]))], missing)]


def meters(sessions: Sequence[dict[str, Any]]) -> list[str]:
    """The meters behind the calibrations that were applied, each once."""
    found = [str(entry["meter"]) for row in sessions for entry in (row.get("calibration") or {}).get("applied", [])]
    return list(dict.fromkeys(found))


def _line(entry: dict[str, Any]) -> str:
    """Gain and offset with their standard uncertainties."""
    return (
        f"gain {entry['gain']:.4f}, offset {entry['offset_w']:.1f} W, standard uncertainties "
        f"{entry['u_gain']:.2g} and {entry['u_offset_w']:.2g} W"
    )
