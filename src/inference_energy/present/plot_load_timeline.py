"""A session's load over time: offered and sent request rate, requests in flight, and time to first token."""

from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from inference_energy.contracts.documents.session import SessionDocument
from inference_energy.present import page
from inference_energy.present.plots import Floats, shade_span
from inference_energy.present.report_inputs import SessionData
from inference_energy.present.trace import thin

BINS = 300
"""Most bins for rates; a bin is a second, or longer in long sessions."""

_DOMAINS = ((0.68, 1.0), (0.36, 0.62), (0.0, 0.3))


def plot_load_timeline(data: SessionData, limit_s: float | None = None) -> go.Figure | None:
    """Plot the load; None if no request was sent.

    Three panels: requests per second, as scheduled and as sent; requests in flight; TTFT of each request, counted from
    the schedule if there is one.

    Args:
        data: the session's files.
        limit_s: the SLO on TTFT, drawn as a line.
    """
    if data.requests is None:
        return None
    sent = data.requests[data.requests["sent_ns"].notna()]
    if sent.empty:
        return None
    origin_ns = _origin_ns(data)
    edges_s = _edges_s(sent, origin_ns)
    scheduled = data.requests[~data.requests["cell"].isin(_closed(data.session))]
    plot = go.Figure(layout=_layout())
    plot.add_scatter(**_rate(sent["sent_ns"], edges_s, origin_ns, "sent", 0), yaxis="y")
    plot.add_scatter(**_rate(scheduled["scheduled_ns"], edges_s, origin_ns, "offered", 1), yaxis="y")
    time_s, count = _in_flight(sent, origin_ns)
    plot.add_scatter(**_line(time_s, count, "in flight", 2), yaxis="y2")
    ttft = sent["first_token_ns"] - sent["scheduled_ns"].where(sent["cell"].isin(scheduled["cell"]), sent["sent_ns"])
    observed = ttft.dropna()
    at_s = _seconds(sent.loc[observed.index, "first_token_ns"], origin_ns)
    order = np.argsort(at_s)
    seconds = observed.to_numpy(dtype=np.float64)[order] / 1e9
    x, y = thin(at_s[order], np.asarray(seconds, dtype=np.float64))
    plot.add_scatter(
        x=x,
        y=y,
        name="TTFT",
        mode="markers",
        marker={"size": 4, "color": page.SERIES[3], "opacity": 0.6},
        hovertemplate="%{y:.3g} s",
        yaxis="y3",
    )
    if limit_s is not None:
        plot.add_scatter(
            x=[edges_s[0], edges_s[-1]],
            y=[limit_s, limit_s],
            name="limit of TTFT",
            mode="lines",
            line={"color": page.LIGHT["bad"], "width": 1.4, "dash": "dash"},
            hovertemplate="%{y:.3g} s",
            yaxis="y3",
        )
    _shade_windows(plot, data, origin_ns)
    return plot


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


def _closed(session: SessionDocument | None) -> list[str]:
    """Return the windows with a closed loop, which have no schedule."""
    if session is None:
        return []
    cells = {**session.windows, "warmup": session.warmup}
    return [name for name, plan in cells.items() if plan and plan.arrival.get("process") == "closed"]


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
    color, dash = page.series(index)
    return {
        "x": x,
        "y": y,
        "name": name,
        "mode": "lines",
        "line": {"color": color, "dash": "solid" if name != "offered" else dash, "width": 1.5, "shape": shape},
        "hovertemplate": "%{y:.3g}",
    }


def _shade_windows(plot: go.Figure, data: SessionData, origin_ns: int) -> None:
    """Shade and name the windows."""
    if data.phases is None:
        return
    for row in data.phases[data.phases["phase"] == "window"].itertuples():
        start_s, end_s = ((int(str(time)) - origin_ns) / 1e9 for time in (row.start_ns, row.end_ns))
        shade_span(plot, start_s, end_s, "phase_busy")
        plot.add_annotation(
            x=(start_s + end_s) / 2,
            y=1,
            yref="paper",
            yanchor="top",
            text=escape(str(row.cell)),
            showarrow=False,
            font={"size": 11, "color": page.LIGHT["soft"]},
        )
