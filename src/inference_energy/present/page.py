"""A page: a template, figures and plotly.js in one HTML file that needs no network."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from inference_energy import __version__
from inference_energy.present import formats, theme


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
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        partial.write_text(html, encoding="utf-8")
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("inference_energy.present"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = formats.plain
    environment.globals.update(
        not_given=formats.NOT_GIVEN,
        plotly_js=Markup(get_plotlyjs()),
        plotly_config=_json(theme.CONFIG),
        swaps=_json(theme.swaps()),
        light=Markup(theme.css_variables(theme.LIGHT)),
        dark=Markup(theme.css_variables(theme.DARK)),
        font=Markup(theme.FONT),
        toolkit_version=__version__,
    )
    return environment


def _json(content: Any) -> Markup:
    """JSON that cannot close the script element it stands in."""
    return Markup(json.dumps(content).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
