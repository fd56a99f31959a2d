"""The report of an experiment: one HTML file with the measurements, their uncertainty, and the reasons for gaps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from inference_energy.contracts.documents.document import read_document
from inference_energy.contracts.documents.experiment import SummaryDocument, SummaryIdle, SummarySession, SummaryWindow
from inference_energy.contracts.documents.machine import EnvironmentDocument
from inference_energy.present import (
    estimates,
    fits,
    latency,
    load_tables,
    method_facts,
    plots,
    uncertainty,
    window_tables,
)
from inference_energy.present.figures_text import UNTRUSTED_GRADES
from inference_energy.present.metrics.section import metric_section
from inference_energy.present.page import plot_json, write_page
from inference_energy.present.plot_load_timeline import plot_load_timeline
from inference_energy.present.report_inputs import (
    SessionData,
    SessionFiles,
    Windows,
    all_figures,
    labels,
    read_session_files,
    steady_windows,
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
    content = read_document(summary, SummaryDocument)
    data = [read_session_files(files) for files in sessions]
    machines = [read_document(path, EnvironmentDocument) for path in environments]
    windows, steady = content.cells, steady_windows(content)
    metrics = metric_section(content)
    drawn = _plots(content, data)
    drawn |= {name: plot_json(plot) for name, plot in (metrics.plots if metrics else {}).items()}
    cards = window_tables.headlines(steady[:MAX_HEADLINES])
    inputs = [summary, *environments, *(path for files in sessions for path in files.existing())]
    write_page(
        output,
        "report.html.j2",
        title=title or content.experiment,
        subject=method_facts.subject(data, machines, content),
        untrusted=_untrusted(content, data),
        headlines=cards,
        footnotes=window_tables.footnotes(cards),
        hidden_count=len(steady) - MAX_HEADLINES,
        counts=_counts(windows, steady),
        traces=_names_of_plots("trace", data, drawn),
        energy=window_tables.energy_table(windows),
        work=window_tables.work_table(windows),
        checks=window_tables.checks_table(windows),
        devices=window_tables.devices_table(windows),
        courses=_names_of_plots("course", data, drawn),
        rates=load_tables.rates_table(windows),
        counted=load_tables.counts_table(windows),
        client=load_tables.client_table(windows),
        latency=latency.latency_table(windows),
        slos=latency.slo_table(windows),
        receipts=latency.receipts_table(_receipts(windows, data)),
        fits=fits.fit_groups(content.fits),
        estimates=estimates.estimates_table(content),
        estimate_scores=estimates.scores_table(content),
        estimate_texts=estimates.estimate_texts(content),
        impact=window_tables.impact_table(windows),
        factors=window_tables.factors(content),
        metrics=metrics,
        idle=window_tables.idle_rows(content.idle),
        basis_meaning=window_tables.BASIS_MEANING,
        environments=method_facts.environment_facts(environments, machines),
        sessions=[
            (
                session.files.label,
                [
                    *method_facts.session_facts(session),
                    *method_facts.calibration_facts(_row(content.sessions, session)),
                ],
            )
            for session in data
        ],
        files=method_facts.files(output, inputs),
        notes=content.notes,
        measured_by=content.toolkit.version,
        budgets=uncertainty.budget_tables(windows),
        calibrations=method_facts.calibration_texts(content.sessions),
        plots=drawn,
    )


def _names_of_plots(kind: str, data: Sequence[SessionData], drawn: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Return name and label of the sessions' plots of a kind that were drawn."""
    names = {f"{kind}-{index}": session.files.label for index, session in enumerate(data)}
    return [(name, label) for name, label in names.items() if name in drawn]


def _plots(summary: SummaryDocument, data: Sequence[SessionData]) -> dict[str, dict[str, Any]]:
    windows = summary.cells
    slos = _slos(windows)
    drawn = {
        "load": plots.plot_energy_vs_load(steady_windows(summary)),
        "latency": latency.plot_latency(_latencies(windows, data), slos),
        "budgets": uncertainty.plot_budgets(windows),
        "receipts": latency.plot_receipts(_receipts(windows, data)),
        "fit": fits.plot_fit(fits.ratios(summary.fits)),
        "estimates": estimates.plot_estimates(summary),
    }
    for index, session in enumerate(data):
        idle, row = _row(summary.idle, session), _row(summary.sessions, session)
        cold = uncalibrated_idle(idle.cold_power_w, row.calibration if row else None) if idle else None
        drawn[f"trace-{index}"] = plot_power_trace(session, cold)
        drawn[f"course-{index}"] = plot_load_timeline(session, slos.get("ttft_s"))
    return {name: plot_json(plot) for name, plot in drawn.items() if plot is not None}


def _slos(windows: Windows) -> dict[str, float]:
    """Return the configured SLOs [s], which all windows share."""
    return {name: row.limit for window in windows for name, row in (window.checks.limits or {}).items()}


def _latencies(windows: Windows, data: Sequence[SessionData]) -> list[tuple[str, dict[str, plots.Floats]]]:
    series = []
    for label, window in zip(labels(windows), windows, strict=True):
        session = _session_of(window, data)
        if session is None or session.requests is None:
            continue
        times = window.window
        rows = session.requests[session.requests["cell"].isin(_names(window))]
        scheduled = window.load.arrival.get("process") != "closed"
        series.append((label, latency.latencies(rows, times.start_ns, times.end_ns, scheduled=scheduled)))
    return series


def _receipts(windows: Windows, data: Sequence[SessionData]) -> list[latency.Receipts]:
    receipts = []
    for label, window in zip(labels(windows), windows, strict=True):
        session = _session_of(window, data)
        if session is not None and session.receipts is not None:
            rows = session.receipts[session.receipts["cell"].isin(_names(window))]
            receipts += latency.receipts_by_policy(label, window.figures.get("energy_total_j"), rows)
    return receipts


def _session_of(window: SummaryWindow, data: Sequence[SessionData]) -> SessionData | None:
    return next((session for session in data if _matches(window, session)), None)


def _matches(entry: SummaryWindow | SummarySession | SummaryIdle, session: SessionData) -> bool:
    """Return whether an entry of the summary is of a session; files without a machine match any."""
    return entry.session == session.files.name and session.files.machine in ("", entry.machine)


def _names(window: SummaryWindow) -> list[str]:
    """Return a window's names: `session.window` in the summary, and `window` in the session's files."""
    return [window.cell, window.cell.split(".", 1)[-1]]


Entry = TypeVar("Entry", SummarySession, SummaryIdle)


def _row(entries: Sequence[Entry], session: SessionData) -> Entry | None:
    """Return a session's entry in a list of the summary; None if it has none."""
    return next((entry for entry in entries if _matches(entry, session)), None)


def _untrusted(summary: SummaryDocument, data: Sequence[SessionData]) -> list[tuple[str, str, str]]:
    """Return the untrusted grades, each with the parts of that grade and the parts that were measured."""
    parts: set[tuple[str, str]] = {
        (device.grade, device.domain) for window in summary.cells for device in window.devices
    }
    parts = parts or {(grade, source) for session in data for source, grade in source_grades(session).items()}
    measured = ", ".join(sorted({name for grade, name in parts if grade not in UNTRUSTED_GRADES}))
    grades = {figure.grade for figure in all_figures(summary)} | {grade for grade, _ in parts}
    return [
        (grade, ", ".join(sorted(name for part_grade, name in parts if part_grade == grade)), measured)
        for grade in UNTRUSTED_GRADES
        if grade in grades
    ]


def _counts(windows: Windows, steady: Windows) -> dict[str, int]:
    return {
        "cells": len(windows),
        "steady": len(steady),
        "given": sum(window_tables.best_basis(window) is not None for window in steady),
    }
