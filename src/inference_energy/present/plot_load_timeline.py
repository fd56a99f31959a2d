"""The course of a session's load: offered and achieved rate, requests in flight, and time to first token."""

from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from inference_energy.present import page
from inference_energy.present.report_inputs import SessionData
from inference_energy.present.trace import thin

Floats = npt.NDArray[np.float64]

BINS = 300
"""Rates are counted in seconds, or in as many longer stretches."""

_DOMAINS = ((0.68, 1.0), (0.36, 0.62), (0.0, 0.3))


def course_figure(data: SessionData, limit_s: float | None = None) -> go.Figure | None:
    """The figure, or None where no request was sent.

    Three panels over time: requests a second as the schedule offers them and as they were sent; requests in flight;
    TTFT of each request, from the schedule where there is one.

    Args:
        data: the session's files.
        limit_s: the limit on TTFT, drawn as a line.
    """
    if data.requests is None:
        return None
    sent = data.requests[data.requests["sent_ns"].notna()]
    if sent.empty:
        return None
    origin_ns = _origin_ns(data)
    edges_s = _edges_s(sent, origin_ns)
    scheduled = data.requests[~data.requests["cell"].isin(_closed(data.session))]
    figure = go.Figure(layout=_layout())
    figure.add_scatter(**_rate(sent["sent_ns"], edges_s, origin_ns, "sent", 0), yaxis="y")
    figure.add_scatter(**_rate(scheduled["scheduled_ns"], edges_s, origin_ns, "offered", 1), yaxis="y")
    time_s, count = _in_flight(sent, origin_ns)
    figure.add_scatter(**_line(time_s, count, "in flight", 2), yaxis="y2")
    ttft = sent["first_token_ns"] - sent["scheduled_ns"].where(sent["cell"].isin(scheduled["cell"]), sent["sent_ns"])
    known = ttft.dropna()
    at_s = _seconds(sent.loc[known.index, "first_token_ns"], origin_ns)
    order = np.argsort(at_s)
    seconds = known.to_numpy(dtype=np.float64)[order] / 1e9
    x, y = thin(at_s[order], np.asarray(seconds, dtype=np.float64))
    figure.add_scatter(
        x=x,
        y=y,
        name="TTFT",
        mode="markers",
        marker={"size": 4, "color": page.SERIES[3], "opacity": 0.6},
        hovertemplate="%{y:.3g} s",
        yaxis="y3",
    )
    if limit_s is not None:
        figure.add_scatter(
            x=[edges_s[0], edges_s[-1]],
            y=[limit_s, limit_s],
            name="limit of TTFT",
            mode="lines",
            line={"color": page.LIGHT["bad"], "width": 1.4, "dash": "dash"},
            hovertemplate="%{y:.3g} s",
            yaxis="y3",
        )
    _shade(figure, data, origin_ns)
    return figure


def _layout() -> dict[str, Any]:
    shared = page.layout("time since the session began (s)", "requests / s", height=560)
    shared |= {"hovermode": "x unified", "showlegend": True, "margin": {"l": 64, "r": 16, "t": 34, "b": 48}}
    axis = shared["yaxis"]
    titles = ("requests / s", "in flight", "TTFT (s)")
    for number, (title, domain) in enumerate(zip(titles, _DOMAINS, strict=True)):
        name = "yaxis" if not number else f"yaxis{number + 1}"
        shared[name] = {**axis, "title": {"text": title}, "domain": list(domain)}
    shared["xaxis"] = {**shared["xaxis"], "anchor": "y3"}
    return shared


def _closed(session: dict[str, Any]) -> list[str]:
    """The cells in which nothing was due at a set time."""
    cells = {**(session.get("windows") or {}), "warmup": session.get("warmup")}
    return [name for name, facts in cells.items() if ((facts or {}).get("arrival") or {}).get("process") == "closed"]


def _origin_ns(data: SessionData) -> int:
    if data.phases is not None and not data.phases.empty:
        return int(data.phases["start_ns"].min())
    return int(data.requests["sent_ns"].min()) if data.requests is not None else 0


def _edges_s(sent: pd.DataFrame, origin_ns: int) -> Floats:
    first = np.floor((int(sent["sent_ns"].min()) - origin_ns) / 1e9)
    last = np.ceil((int(sent["end_ns"].fillna(sent["sent_ns"]).max()) - origin_ns) / 1e9)
    width = max(1.0, np.ceil((last - first) / BINS))
    return np.arange(first, max(last, first + width) + width, width)


def _seconds(times_ns: "pd.Series[int]", origin_ns: int) -> Floats:
    return np.asarray((times_ns.to_numpy(dtype=np.int64) - origin_ns) / 1e9, dtype=np.float64)


def _rate(times_ns: "pd.Series[int]", edges_s: Floats, origin_ns: int, name: str, index: int) -> dict[str, Any]:
    counts, _ = np.histogram(_seconds(times_ns.dropna(), origin_ns), bins=edges_s)
    return _line(edges_s[:-1], counts / np.diff(edges_s), name, index, shape="hv")


def _in_flight(sent: pd.DataFrame, origin_ns: int) -> tuple[Floats, Floats]:
    begun = np.sort(_seconds(sent["sent_ns"], origin_ns))
    ended = np.sort(_seconds(sent["end_ns"].dropna(), origin_ns))
    times = np.union1d(begun, ended)
    count = np.searchsorted(begun, times, side="right") - np.searchsorted(ended, times, side="right")
    return thin(times, np.asarray(count, dtype=np.float64))


def _line(x: Floats, y: Floats, name: str, index: int, shape: str = "linear") -> dict[str, Any]:
    colour, dash = page.series(index)
    return {
        "x": x,
        "y": y,
        "name": name,
        "mode": "lines",
        "line": {"color": colour, "dash": "solid" if name != "offered" else dash, "width": 1.5, "shape": shape},
        "hovertemplate": "%{y:.3g}",
    }


def _shade(figure: go.Figure, data: SessionData, origin_ns: int) -> None:
    """The windows, named."""
    if data.phases is None:
        return
    for row in data.phases[data.phases["phase"] == "window"].itertuples():
        start_s, end_s = ((int(str(time)) - origin_ns) / 1e9 for time in (row.start_ns, row.end_ns))
        figure.add_shape(
            type="rect",
            xref="x",
            yref="paper",
            x0=start_s,
            x1=end_s,
            y0=0,
            y1=1,
            layer="below",
            line_width=0,
            fillcolor=page.LIGHT["phase_busy"],
        )
        figure.add_annotation(
            x=(start_s + end_s) / 2,
            y=1,
            yref="paper",
            yanchor="top",
            text=escape(str(row.cell)),
            showarrow=False,
            font={"size": 11, "color": page.LIGHT["soft"]},
        )
