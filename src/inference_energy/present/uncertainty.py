"""The report's section on uncertainty: the budget of each headline figure as a table, and its terms as a plot.

The budgets of carbon and water are those of their energy, scaled: the tables show them, the plot does not repeat them.
"""

import textwrap
from html import escape

import plotly.graph_objects as go

from inference_energy.contracts.documents.experiment import SummaryWindow
from inference_energy.contracts.figure import Figure, UncertaintyBudget
from inference_energy.present import page
from inference_energy.present.figures_text import FormattedFigure, Scale, format_figure, scale_for, significant
from inference_energy.present.plots import buttons_menu
from inference_energy.present.report_inputs import Windows, labels
from inference_energy.present.tables import Table, TableCell, column
from inference_energy.present.window_tables import BASES, best_basis, energy_per_token, window_title

MANY = 1000.0
"""More degrees of freedom are practically infinite."""

KINDS = ("energy per output token", "mean power", "energy")
_NAMES = (tuple(energy_per_token(basis) for basis in BASES), ("power_mean_w",), ("energy_total_j",))


_IMPACTS = (
    ("carbon", "carbon_total_g"),
    ("water, site", "water_site_l"),
    ("water, source", "water_source_l"),
    ("water, both", "water_total_l"),
)


def headline_figures(window: SummaryWindow) -> list[tuple[str, Figure | None, str]]:
    """Return the figures whose budgets are shown, each with its kind (see `KINDS`) and its divisor.

    The energy per token is on the basis that is shown large: the first on which it has a value.
    """
    figures = window.figures
    return [
        (KINDS[0], figures.get(energy_per_token(best_basis(window) or BASES[0])), "output token"),
        (KINDS[1], figures.get("power_mean_w"), ""),
        (KINDS[2], figures.get("energy_total_j"), ""),
    ]


def impact_figures(window: SummaryWindow) -> list[tuple[str, str]]:
    """Return kind and name of the carbon and water figures whose factors are configured."""
    figures = window.figures
    return [
        (kind, name)
        for kind, name in _IMPACTS
        if name in figures and not any(reason.code == "no_factor" for reason in figures[name].reasons)
    ]


def budget_tables(windows: Windows) -> list[tuple[str, Table]]:
    """Return a title and a table of budgets for each window."""
    return [(window_title(window, windows), budget_table(window, windows)) for window in windows]


def budget_table(window: SummaryWindow, windows: Windows) -> Table:
    """Tabulate the terms of each headline figure, and of carbon and water, or why there is no budget."""
    table = Table(["term", "kind", "standard uncertainty", "relative", "share", "degrees of freedom", "where from"])
    # Windows of one kind share the units of the headlines.
    peers = [other for other in windows if other.kind == window.kind]
    shown_figures = [
        *zip(headline_figures(window), _NAMES, strict=True),
        *(((kind, window.figures[name], ""), (name,)) for kind, name in impact_figures(window)),
    ]
    for (kind, figure, per), names in shown_figures:
        scale = column(peers, "", *names)[0].scale or Scale(1.0, "")
        shown = format_figure(figure, scale, per=per)
        basis = "" if figure is None or figure.basis == "none" else f", {figure.basis}"
        table.heading(f"{kind}{basis}: {shown.text}")
        budget = figure.budget if figure else None
        if figure is None or figure.value is None or budget is None:
            why = shown.why if not shown.has_value else shown.no_interval_reason or "The summary holds no budget of it."
            table.add(
                TableCell("budget", "head"), TableCell(f"not given: {why}", "missing", span=len(table.columns) - 1)
            )
            continue
        _add_budget(table, figure.value, budget, shown, scale)
    return table


def plot_budgets(windows: Windows) -> go.Figure | None:
    """Plot shares u_i^2 / u_c^2, a bar per window, with a button for each kind of figure; None without a budget."""
    rows = [(label, headline_figures(window)) for label, window in zip(labels(windows), windows, strict=True)]
    budgets_by_kind = []
    for index, kind in enumerate(KINDS):
        candidates = [(label, figures[index][1]) for label, figures in rows]
        budgets = [
            (label, figure, figure.budget)
            for label, figure in candidates
            if figure and figure.budget and figure.budget.combined > 0
        ]
        if budgets:
            budgets_by_kind.append((kind, budgets))
    if not budgets_by_kind:
        return None
    names = list(
        dict.fromkeys(term.name for _, budgets in budgets_by_kind for *_, budget in budgets for term in budget.terms)
    )
    height = 190 + 40 * max(len(budgets) for _, budgets in budgets_by_kind)
    plot = go.Figure(layout=page.layout("share of u²", "", height=height, barmode="stack"))
    drawn: list[str] = []
    for kind, budgets in budgets_by_kind:
        for index, name in enumerate(names):
            bars = [(label, *_share(figure, budget, name)) for label, figure, budget in budgets]
            if not any(share for _, share, _ in bars):
                continue
            # From the seventh term on colors repeat, so a pattern is the second cue.
            pattern = "/" if index >= len(page.SERIES) else ""
            plot.add_bar(
                y=[_wrapped(label) for label, *_ in bars],
                x=[share for _, share, _ in bars],
                text=[text for *_, text in bars],
                textposition="none",
                name=escape(name),
                orientation="h",
                marker={"color": page.series(index)[0], "pattern": {"shape": pattern}},
                hovertemplate="%{text}",
                visible=kind == budgets_by_kind[0][0],
            )
            drawn.append(kind)
    buttons = [
        {"label": kind, "method": "restyle", "args": [{"visible": [drawn_kind == kind for drawn_kind in drawn]}]}
        for kind, _ in budgets_by_kind
    ]
    plot.update_xaxes(range=[0, 1.01], tickformat=".0%", showgrid=True)
    plot.update_yaxes(autorange="reversed", rangemode="normal", showgrid=False, ticks="")
    plot.update_layout(
        updatemenus=[buttons_menu(buttons)] if len(buttons) > 1 else [],
        showlegend=True,
        margin={"t": 44},
        legend={"y": -56 / (height - 100), "yanchor": "top", "traceorder": "normal"},
    )
    return plot


def _add_budget(table: Table, value: float, budget: UncertaintyBudget, shown: FormattedFigure, scale: Scale) -> None:
    combined = budget.combined

    def sizes(u: float) -> list[TableCell]:
        relative = f"{significant(100 * u / abs(value), 2)}\u00a0%" if value else "–"
        return [
            TableCell(f"{significant(u * scale.factor, 2)}\u00a0{shown.unit}", "number"),
            TableCell(relative, "number"),
        ]

    def share(u: float) -> TableCell:
        percent = 100 * u**2 / combined**2 if combined else 0.0
        return TableCell(f"{percent:.1f}\u00a0%" if percent >= 0.05 else "< 0.1\u00a0%", "number")

    for term in budget.terms:
        table.add(
            TableCell(term.name, "head"),
            TableCell(term.kind),
            *sizes(term.u),
            share(term.u),
            TableCell(freedom(term.dof), "number"),
            TableCell(term.basis),
        )
    table.add(
        TableCell("combined", "head"),
        TableCell(", ".join(sorted({term.kind for term in budget.terms}))),
        *sizes(combined),
        TableCell("100\u00a0%", "number"),
        TableCell(freedom(budget.dof), "number"),
        TableCell("root of the sum of squares; effective degrees of freedom by Welch and Satterthwaite"),
    )
    table.add(
        TableCell("expanded, U", "head"),
        TableCell("95\u00a0%"),
        *sizes(budget.expanded),
        TableCell("–", "number"),
        TableCell("–", "number"),
        TableCell(f"coverage factor k = {budget.factor:.2f} times the combined"),
    )


def freedom(dof: float | None) -> str:
    """Return degrees of freedom as text; None stands for infinitely many."""
    if dof is None:
        return "∞"
    return f"> {MANY:,.0f}" if dof > MANY else significant(dof, 3)


def _share(figure: Figure, budget: UncertaintyBudget, name: str) -> tuple[float, str]:
    """Return the share of the terms with this name, and the text of the tooltip."""
    u2 = sum(term.u**2 for term in budget.terms if term.name == name)
    share = u2 / budget.combined**2
    scale = scale_for([figure.value], figure.unit)
    return share, escape(f"{name}: {100 * share:.1f} %, u = {significant(u2**0.5 * scale.factor, 2)} {scale.unit}")


def _wrapped(label: str) -> str:
    """Return a label broken into short lines, with its markup escaped."""
    return "<br>".join(escape(line) for line in textwrap.wrap(label, 24))
