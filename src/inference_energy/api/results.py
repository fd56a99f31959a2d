"""A finished experiment as tables: `read_results`."""

import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from inference_energy.contracts import power, receipts, requests
from inference_energy.contracts.documents.experiment import SummaryDocument, read_summary
from inference_energy.contracts.figure import Figure
from inference_energy.contracts.io import read_table
from inference_energy.contracts.outside import path_name
from inference_energy.errors import InputError
from inference_energy.provenance.archive_reader import Archive

FIGURE_COLUMNS = ("value", "low", "high", "unit", "basis", "boundary", "grade", "valid", "reasons")
_TABLES = ("requests.parquet", "receipts.parquet", "power.parquet")


@dataclass(frozen=True)
class ExperimentResults:
    """The results of an experiment: its summary as a typed document, and everything else as pandas tables.

    Tables are read when they are first used. Their columns `machine` and `session` name where a row comes from.

    Attributes:
        summary: content of summary.json.
        folder: results folder, with `raw/` and `derived/`.
    """

    summary: SummaryDocument
    folder: Path
    _unpacked: "tempfile.TemporaryDirectory[str] | None" = None
    """The unpacked files of an archive, which are removed with this object."""

    def __repr__(self) -> str:
        """Return the experiment and its size in a line."""
        sessions = len(self.summary.sessions)
        return (
            f"ExperimentResults({self.summary.experiment!r}, {len(self.summary.cells)} windows of {sessions} "
            f"session{'s' if sessions != 1 else ''}, folder={str(self.folder)!r})"
        )

    @cached_property
    def windows(self) -> pd.DataFrame:
        """A row per window: names, load, times [monotonic ns], and the value of each figure; NaN if it has none."""
        return pd.DataFrame(
            [
                {
                    "machine": window.machine,
                    "session": window.session,
                    "window": window.window.name,
                    "server": window.server,
                    "model": window.model,
                    "kind": window.kind,
                    "workload": window.load.workload,
                    "load": window.load.text,
                    "start_ns": window.window.start_ns,
                    "end_ns": window.window.end_ns,
                    **{name: figure.value for name, figure in window.figures.items()},
                }
                for window in self.summary.cells
            ]
        )

    @cached_property
    def figures(self) -> pd.DataFrame:
        """A row per window and figure: `name`, `value`, 95 % interval (`low`, `high`), `unit`, ..., and `reasons`."""
        return _figure_table(
            ({"machine": window.machine, "session": window.session, "window": window.window.name}, window.figures)
            for window in self.summary.cells
        )

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """A row per metric, with the columns of `figures`; the metrics of a sweep name its workload as `window`."""
        metrics = self.summary.metrics
        if metrics is None:
            return _figure_table(())
        windows = (
            ({"machine": window.machine, "session": window.session, "window": _short_name(window.cell)}, window.figures)
            for window in metrics.cells
        )
        sweeps = (
            ({"machine": sweep.machine, "session": sweep.server, "window": sweep.workload}, sweep.figures)
            for sweep in metrics.sweeps
        )
        return _figure_table([*windows, *sweeps])

    @cached_property
    def requests(self) -> pd.DataFrame:
        """Every request of every session; docs/reference/files.md describes the columns of requests.parquet."""
        return self._table("raw/{machine}/sessions/{session}/requests.parquet", requests.SCHEMA)

    @cached_property
    def receipts(self) -> pd.DataFrame:
        """The energy that each request is charged, as in receipts.parquet."""
        return self._table("derived/{machine}/{session}/receipts.parquet", receipts.SCHEMA)

    @cached_property
    def power(self) -> pd.DataFrame:
        """Every power reading of every session, as in power.parquet."""
        return self._table("raw/{machine}/sessions/{session}/power.parquet", power.SCHEMA)

    def _table(self, path: str, schema: pa.Schema) -> pd.DataFrame:
        """Return a table of all sessions.

        Raises:
            InputError: a session lacks the file, or it has other columns.
        """
        tables = []
        for session in self.summary.sessions:
            file = self.folder / path.format(machine=session.machine, session=session.session)
            if not file.is_file():
                raise InputError(
                    f"{file}: no such file: the tables need raw/ and derived/ beside the experiment's folder"
                )
            table = read_table(file, schema)
            table.insert(0, "machine", session.machine)
            table.insert(1, "session", session.session)
            tables.append(table)
        columns = ["machine", "session", *schema.names]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def read_results(path: str | Path) -> ExperimentResults:
    """Read the results of a finished experiment.

    Args:
        path: an experiment's folder such as `results/default`, or an archive that `inference-energy archive` made.

    Raises:
        InputError: it is neither, the experiment has not ended, or a file of an archive is not as its manifest says.
        TypeError: it is no path.

    Examples:
        >>> from inference_energy import read_results
        >>> results = read_results("results/default")
        >>> results.windows[["window", "kind", "power_mean_w"]]
          window    kind  power_mean_w
        0     q2  steady         300.0
        >>> per_token = results.figures[results.figures["name"] == "energy_total_per_output_token_j"]
        >>> per_token[["window", "value", "unit", "valid"]].to_dict("records")
        [{'window': 'q2', 'value': 0.5, 'unit': 'J/token', 'valid': True}]
        >>> results.requests.groupby("cell")["completion_tokens"].sum().to_dict()
        {'q2': 300}
        >>> float(results.receipts["energy_j"].sum())
        150.0
        >>> results.summary.cells[0].figures["power_mean_w"].grade
        'counter'
    """
    if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes):
        raise TypeError(f"path: a text or a Path is expected, not {type(path).__name__}")
    path = Path(path)
    try:
        if path.suffix == ".zip" and not path.is_dir():
            return _read_archive(path)
        return ExperimentResults(read_summary(path), path.absolute().parent)
    except OSError as error:
        raise InputError(f"{path_name(path)} cannot be read: {error.strerror}", key="path") from error


def _read_archive(path: Path) -> ExperimentResults:
    unpacked = tempfile.TemporaryDirectory(prefix="inference-energy-results-")
    with Archive(path) as archive:
        experiment = f"results/{archive.manifest.experiment}"

        def used(name: str) -> bool:
            return name == f"{experiment}/{SummaryDocument.FILE}" or name.endswith(_TABLES)

        problems = archive.check(Path(unpacked.name), used)
    damaged = [f"{name}: {problem}" for name, problem in problems.items() if used(name)]
    if damaged:
        raise InputError(f"{path}: {'; '.join(damaged)}")
    folder = Path(unpacked.name, "results")
    try:
        summary = read_summary(Path(unpacked.name, experiment))
    except InputError as error:
        # The unpacked file is gone when the user reads this, so the message names the archive.
        raise InputError(f"{path}: {experiment}/{str(error).removeprefix(f'{unpacked.name}/{experiment}/')}") from error
    return ExperimentResults(summary, folder, unpacked)


def _figure_table(owners: Iterable[tuple[Mapping[str, Any], Mapping[str, Figure]]]) -> pd.DataFrame:
    rows = [
        {**owner, "name": name, **_figure_values(figure)}
        for owner, figures in owners
        for name, figure in figures.items()
    ]
    return pd.DataFrame(rows, columns=["machine", "session", "window", "name", *FIGURE_COLUMNS])


def _figure_values(figure: Figure) -> dict[str, Any]:
    low, high = figure.interval_95 or (None, None)
    return {
        "value": figure.value,
        "low": low,
        "high": high,
        "unit": figure.unit,
        "basis": figure.basis,
        "boundary": figure.boundary,
        "grade": figure.grade,
        "valid": figure.valid,
        "reasons": "; ".join(f"{reason.code}: {reason.detail}" for reason in figure.reasons),
    }


def _short_name(cell: str) -> str:
    """Return a window's name without its session."""
    return cell.split(".", 1)[-1]
