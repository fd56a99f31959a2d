"""Colours of pages and figures, light and dark, from one table.

Colours of pages and figures, light and dark, from one table.

The series colours are Okabe and Ito's colour-blind-safe set (jfly.uni-koeln.de/color), darkened or lightened until each
has a contrast of at least 3:1 on its page. Figures are drawn in the light colours; the page's script swaps each for its
dark partner, so that a figure follows the theme without being drawn twice.

A page: a template, figures and plotly.js in one HTML file that needs no network.
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
"""Line styles; a second cue beside the colour, and what tells series apart beyond the sixth."""

SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "cross")

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

CONFIG: dict[str, Any] = {"displayModeBar": False, "displaylogo": False, "responsive": True}
"""Plotly's settings for every figure: dragging zooms in, a double click zooms out, so there is no row of buttons."""


def series(index: int) -> tuple[str, str]:
    """Colour and line style of the series with this index."""
    return SERIES[index % len(SERIES)], DASHES[(index // len(SERIES) + index) % len(DASHES)]


def css_variables(colours: dict[str, str]) -> str:
    """The table as CSS custom properties: `--series-1: #0072b2; ...`."""
    return " ".join(f"--{name.replace('_', '-')}: {colour};" for name, colour in colours.items())


def swaps() -> dict[str, str]:
    """Light colour to dark colour, for the figures."""
    return {LIGHT[name]: DARK[name] for name in LIGHT}


def layout(x_title: str, y_title: str, **more: Any) -> dict[str, Any]:
    """The layout shared by all figures.

    Args:
        x_title: title of the x axis, with its unit.
        y_title: title of the y axis, with its unit.
        more: further keys; they replace those given here.
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


def figure_json(figure: go.Figure) -> dict[str, Any]:
    """Data and layout of a figure as the page's script takes them."""
    content: dict[str, Any] = json.loads(figure.to_json())
    content["layout"].pop("template", None)
    return content


def write_page(output: Path, template: str, **content: Any) -> None:
    """Render a template of this package and write it, complete or not at all.

    Args:
        output: the HTML file; its folder is made too.
        template: name of the template.
        content: what the template takes; `figures` (name to `figure_json`) are embedded as data.
    """
    figures = {name: _json(figure) for name, figure in content.pop("figures", {}).items()}
    html = _environment().get_template(template).render(figures=figures, **content)
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
    """JSON that cannot close the script element it stands in."""
    return Markup(json.dumps(content).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
