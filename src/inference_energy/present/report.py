"""The report of an experiment: one HTML file with the measurements, their uncertainty, and the reasons for gaps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference_energy.contracts.io import read_json
from inference_energy.present import (
    cell_tables,
    estimates,
    fits,
    latency,
    load_tables,
    method_facts,
    plots,
    uncertainty,
)
from inference_energy.present.figures_text import UNTRUSTED_GRADES
from inference_energy.present.metrics.section import metric_section
from inference_energy.present.page import plot_json, write_page
from inference_energy.present.plot_load_timeline import plot_load_timeline
from inference_energy.present.report_inputs import (
    SessionData,
    SessionFiles,
    all_figures,
    labels,
    read_session_files,
    read_summary,
    steady_cells,
)
from inference_energy.present.trace import plot_power_trace, source_grades, uncalibrated_idle

MAX_HEADLINES = 12
"""Further steady windows are shown in the tables only."""


def write_report(
    output: Path,
    summary: Path,
    sessions: Sequence[SessionFiles],
    environments: Sequence[Path] = (),
    *,
    title: str | None = None,
) -> None:
    """Write the report.

    Args:
        output: the HTML file to make.
        summary: summary.json of the experiment.
        sessions: the files of its sessions, in the order of the report.
        environments: environment.json of each session or machine.
        title: the heading; None: the experiment's name.

    Raises:
        InputError: a file is missing, or its content does not match its name.
    """
    content = read_summary(summary)
    data = [read_session_files(files) for files in sessions]
    machines = [read_json(path) for path in environments]
    cells = content["cells"]
    steady = steady_cells(content)
    metrics = metric_section(content)
    drawn = _plots(content, data)
    drawn |= {name: plot_json(plot) for name, plot in (metrics.plots if metrics else {}).items()}
    cards = cell_tables.headlines(steady[:MAX_HEADLINES])
    inputs = [summary, *environments, *(path for files in sessions for path in files.existing())]
    write_page(
        output,
        "report.html.j2",
        title=title or content["experiment"],
        subject=method_facts.subject(data, machines, content),
        untrusted=_untrusted(content, data),
        headlines=cards,
        footnotes=cell_tables.footnotes(cards),
        hidden_count=len(steady) - MAX_HEADLINES,
        counts=_counts(cells, steady),
        traces=[
            (f"trace-{index}", session.files.label) for index, session in enumerate(data) if f"trace-{index}" in drawn
        ],
        energy=cell_tables.energy_table(cells),
        work=cell_tables.work_table(cells),
        checks=cell_tables.checks_table(cells),
        devices=cell_tables.devices_table(cells),
        courses=[
            (f"course-{index}", session.files.label) for index, session in enumerate(data) if f"course-{index}" in drawn
        ],
        rates=load_tables.rates_table(cells),
        counted=load_tables.counts_table(cells),
        client=load_tables.client_table(cells),
        latency=latency.latency_table(cells),
        slos=latency.slo_table(cells),
        receipts=latency.receipts_table(_receipts(cells, data)),
        fits=fits.fit_groups(content["fits"]),
        estimates=estimates.estimates_table(content),
        estimate_scores=estimates.scores_table(content),
        estimate_texts=estimates.estimate_texts(content),
        impact=cell_tables.impact_table(cells),
        factors=cell_tables.factors(content),
        metrics=metrics,
        idle=cell_tables.idle_rows(content["idle"]),
        basis_meaning=cell_tables.BASIS_MEANING,
        environments=method_facts.environment_facts(environments, machines),
        sessions=[
            (
                session.files.label,
                [*method_facts.session_facts(session), *method_facts.calibration_facts(_row(content, session))],
            )
            for session in data
        ],
        files=method_facts.files(output, inputs),
        notes=[str(note.get("detail", note)) if isinstance(note, dict) else str(note) for note in content["notes"]],
        measured_by=str((content.get("toolkit") or {}).get("version") or "not recorded"),
        budgets=uncertainty.budget_tables(cells),
        calibrations=method_facts.calibration_texts(content["sessions"]),
        plots=drawn,
    )


def _plots(content: dict[str, Any], data: Sequence[SessionData]) -> dict[str, dict[str, Any]]:
    cells = content["cells"]
    limits = _slos(cells)
    drawn = {
        "load": plots.plot_energy_vs_load(steady_cells(content)),
        "latency": latency.plot_latency(_latencies(cells, data), limits),
        "budgets": uncertainty.plot_budgets(cells),
        "receipts": latency.plot_receipts(_receipts(cells, data)),
        "fit": fits.plot_fit(fits.ratios(content["fits"])),
        "estimates": estimates.plot_estimates(content),
    }
    for index, session in enumerate(data):
        cold_idle = uncalibrated_idle(_cold_idle(content["idle"], session), _row(content, session).get("calibration"))
        drawn[f"trace-{index}"] = plot_power_trace(session, cold_idle)
        drawn[f"course-{index}"] = plot_load_timeline(session, limits.get("ttft_s"))
    return {name: plot_json(plot) for name, plot in drawn.items() if plot is not None}


def _slos(cells: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the configured SLOs [s], which all windows share."""
    tables = ((cell.get("checks") or {}).get("limits") or {} for cell in cells)
    return {name: float(row["limit"]) for table in tables for name, row in table.items()}


def _latencies(
    cells: Sequence[dict[str, Any]], data: Sequence[SessionData]
) -> list[tuple[str, dict[str, plots.Floats]]]:
    series = []
    for label, cell in zip(labels(cells), cells, strict=True):
        session = _session_of(cell, data)
        if session is None or session.requests is None:
            continue
        window = cell.get("window")
        bounds = (window["start_ns"], window["end_ns"]) if isinstance(window, dict) else (None, None)
        rows = session.requests[session.requests["cell"].isin(_names(cell))]
        closed = ((cell.get("load") or {}).get("arrival") or {}).get("process") == "closed"
        series.append((label, latency.latencies(rows, *bounds, scheduled=not closed)))
    return series


def _receipts(cells: Sequence[dict[str, Any]], data: Sequence[SessionData]) -> list[latency.Receipts]:
    receipts_by_cell = []
    for label, cell in zip(labels(cells), cells, strict=True):
        session = _session_of(cell, data)
        if session is not None and session.receipts is not None:
            rows = session.receipts[session.receipts["cell"].isin(_names(cell))]
            receipts_by_cell += latency.receipts_by_policy(label, cell["figures"].get("energy_total_j"), rows)
    return receipts_by_cell


def _session_of(cell: dict[str, Any], data: Sequence[SessionData]) -> SessionData | None:
    return next(
        (
            session
            for session in data
            if session.files.name == cell.get("session") and session.files.machine in ("", cell.get("machine", ""))
        ),
        None,
    )


def _names(cell: dict[str, Any]) -> list[str]:
    """Return a window's names: `session.window` in the summary, and `window` in the session's files."""
    return [str(cell["cell"]), str(cell["cell"]).split(".", 1)[-1]]


def _row(content: dict[str, Any], session: SessionData) -> dict[str, Any]:
    """Return a session's entry in the summary; empty if it has none."""
    for row in content["sessions"]:
        if row.get("session") == session.files.name and row.get("machine", "") in ("", session.files.machine):
            return dict(row)
    return {}


def _cold_idle(rows: Sequence[dict[str, Any]], session: SessionData) -> dict[str, Any] | None:
    for row in rows:
        if row.get("session") == session.files.name and row.get("machine", "") in ("", session.files.machine):
            figure: dict[str, Any] | None = row.get("cold_power_w")
            return figure
    return None


def _untrusted(content: dict[str, Any], data: Sequence[SessionData]) -> list[tuple[str, str, str]]:
    """Return the untrusted grades, each with the parts of that grade and the parts that were measured."""
    parts = {(str(d["grade"]), str(d["domain"])) for cell in content["cells"] for d in cell.get("devices") or []}
    parts |= (
        {(grade, source) for session in data for source, grade in source_grades(session).items()}
        if not parts
        else set()
    )
    measured = ", ".join(sorted({name for grade, name in parts if grade not in UNTRUSTED_GRADES}))
    grades = {figure["grade"] for figure in all_figures(content)} | {grade for grade, _ in parts}
    return [
        (grade, ", ".join(sorted(name for each, name in parts if each == grade)), measured)
        for grade in UNTRUSTED_GRADES
        if grade in grades
    ]


def _counts(cells: Sequence[dict[str, Any]], steady: Sequence[dict[str, Any]]) -> dict[str, int]:
    return {
        "cells": len(cells),
        "steady": len(steady),
        "given": sum(cell_tables.best_basis(cell) is not None for cell in steady),
    }
