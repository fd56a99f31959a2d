"""A page: a template, plots and plotly.js in one HTML file that needs no network; colors from one table.

The series colors are Okabe and Ito's color-blind-safe set (jfly.uni-koeln.de/color), darkened or lightened until each
has a contrast of at least 3:1 on its page. Plots are drawn in the light colors; the page's script swaps each for its
dark partner, so that a plot follows the theme without being drawn twice.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from inference_energy import __version__
from inference_energy.contracts.io import atomic_write
from inference_energy.present import figures_text

LIGHT = {
    "page": "#fbfbf9",
    "panel": "#ffffff",
    "sunken": "#f3f3ef",
    "ink": "#1a1d21",
    "soft": "#555d66",
    "line": "#dfdfd8",
    "grid": "#ebebe5",
    "accent": "#00639c",
    "good": "#00704f",
    "warn": "#8a4b00",
    "warn_page": "#fff4df",
    "warn_line": "#e9b04c",
    "bad": "#a8323e",
    "series_1": "#0072b2",
    "series_2": "#c65102",
    "series_3": "#008e68",
    "series_4": "#b5568d",
    "series_5": "#8a7300",
    "series_6": "#3f8fc0",
    "phase_idle": "rgba(90, 100, 112, 0.09)",
    "phase_busy": "rgba(0, 114, 178, 0.13)",
    "phase_warm": "rgba(198, 130, 2, 0.13)",
}

DARK = {
    "page": "#121417",
    "panel": "#1a1d21",
    "sunken": "#22262b",
    "ink": "#e9ebed",
    "soft": "#a3abb4",
    "line": "#343a41",
    "grid": "#2a2f35",
    "accent": "#6cb8ee",
    "good": "#4ec9a0",
    "warn": "#f0b65c",
    "warn_page": "#2e2413",
    "warn_line": "#7d5a1e",
    "bad": "#f28b94",
    "series_1": "#5db3ea",
    "series_2": "#f08c42",
    "series_3": "#3ec99b",
    "series_4": "#dc8fbd",
    "series_5": "#d9c23f",
    "series_6": "#9fd0f0",
    "phase_idle": "rgba(163, 171, 180, 0.10)",
    "phase_busy": "rgba(93, 179, 234, 0.17)",
    "phase_warm": "rgba(240, 176, 80, 0.15)",
}

SERIES = tuple(LIGHT[f"series_{number}"] for number in range(1, 7))
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""Line styles: a second cue beside the color, and the only one that differs after the sixth series."""

SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "cross")

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

CONFIG: dict[str, Any] = {"displayModeBar": False, "displaylogo": False, "responsive": True}
"""Plotly's settings for every plot: dragging zooms in and a double click zooms out, so no toolbar is needed."""


def series(index: int) -> tuple[str, str]:
    """Return color and line style of the series with this index."""
    return SERIES[index % len(SERIES)], DASHES[(index // len(SERIES) + index) % len(DASHES)]


def css_variables(colors: dict[str, str]) -> str:
    """Return the table as CSS custom properties: `--series-1: #0072b2; ...`."""
    return " ".join(f"--{name.replace('_', '-')}: {color};" for name, color in colors.items())


def swaps() -> dict[str, str]:
    """Return the dark color of each light color, for the plots."""
    return {LIGHT[name]: DARK[name] for name in LIGHT}


def layout(x_title: str, y_title: str, **more: Any) -> dict[str, Any]:
    """Return the layout that all plots share.

    Args:
        x_title: title of the x axis, with its unit.
        y_title: title of the y axis, with its unit.
        more: further keys; they override the shared ones.
    """
    axis = {
        "gridcolor": LIGHT["grid"],
        "linecolor": LIGHT["line"],
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": LIGHT["line"],
        "automargin": True,
        "title_standoff": 10,
    }
    shared: dict[str, Any] = {
        "template": "none",
        "font": {"family": FONT, "size": 13, "color": LIGHT["soft"]},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 12, "b": 48},
        "hoverlabel": {"bgcolor": LIGHT["panel"], "bordercolor": LIGHT["line"], "font": {"color": LIGHT["ink"]}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"color": LIGHT["ink"]}},
        "xaxis": {**axis, "title": {"text": x_title}, "showgrid": False},
        "yaxis": {**axis, "title": {"text": y_title}, "rangemode": "tozero"},
        "height": 360,
    }
    return {**shared, **more}


def plot_json(plot: go.Figure) -> dict[str, Any]:
    """Return data and layout of a plot as the page's script expects them."""
    content: dict[str, Any] = json.loads(plot.to_json())
    content["layout"].pop("template", None)
    return content


def write_page(output: Path, template: str, **content: Any) -> None:
    """Render a template of this package and write it, complete or not at all.

    Args:
        output: the HTML file; its folder is made too.
        template: name of the template.
        content: the template's variables; `plots` (name to `plot_json`) are embedded as data.
    """
    plots = {name: _json(plot) for name, plot in content.pop("plots", {}).items()}
    html = _environment().get_template(template).render(plots=plots, **content)
    with atomic_write(output) as partial:
        partial.write_text(html, encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("inference_energy.present"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = figures_text.plain
    environment.globals.update(
        not_given=figures_text.NOT_GIVEN,
        plotly_js=Markup(get_plotlyjs()),
        plotly_config=_json(CONFIG),
        swaps=_json(swaps()),
        light=Markup(css_variables(LIGHT)),
        dark=Markup(css_variables(DARK)),
        font=Markup(FONT),
        toolkit_version=__version__,
    )
    return environment


def _json(content: Any) -> Markup:
    """Return JSON that cannot close the script element around it."""
    return Markup(json.dumps(content).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
