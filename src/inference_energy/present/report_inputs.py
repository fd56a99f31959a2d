"""The files of a report and their content; absent files are None, and the report names the gap."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from inference_energy.contracts import phases, power, receipts, requests
from inference_energy.contracts.documents.document import read_document
from inference_energy.contracts.documents.experiment import SummaryDocument, SummaryWindow
from inference_energy.contracts.documents.machine import ModelDocument, ServerEnvironmentDocument
from inference_energy.contracts.documents.session import SessionDocument
from inference_energy.contracts.figure import Figure
from inference_energy.contracts.io import read_metadata, read_table

Windows = Sequence[SummaryWindow]


@dataclass(frozen=True)
class SessionFiles:
    """The files of one session; without a path, its part of the report is left out.

    `name` and `machine` are those of the summary.
    """

    name: str
    machine: str
    power: Path | None = None
    phases: Path | None = None
    requests: Path | None = None
    receipts: Path | None = None
    session: Path | None = None
    idle: Path | None = None
    server_environment: Path | None = None
    model: Path | None = None

    @property
    def label(self) -> str:
        """The session's name in headings."""
        return f"{self.name} on {self.machine}" if self.machine else self.name

    def existing(self) -> list[Path]:
        """Return the paths that are set, for the list of files to recompute from."""
        paths = (self.power, self.phases, self.requests, self.receipts, self.session, self.idle)
        return [path for path in (*paths, self.server_environment, self.model) if path is not None]


@dataclass(frozen=True)
class SessionData:
    """The content of a session's files; the data contracts describe the columns, `contracts.power` the metadata."""

    files: SessionFiles
    power: pd.DataFrame | None
    power_metadata: dict[str, Any]
    phases: pd.DataFrame | None
    requests: pd.DataFrame | None
    receipts: pd.DataFrame | None
    session: SessionDocument | None
    server_environment: ServerEnvironmentDocument | None
    model: ModelDocument | None


def read_session_files(files: SessionFiles) -> SessionData:
    """Read the files of a session.

    Raises:
        InputError: a file is missing, or its content does not match its name.
    """
    environment, model = files.server_environment, files.model
    return SessionData(
        files=files,
        power=_table(files.power, power.SCHEMA),
        power_metadata=read_metadata(files.power) if files.power else {},
        phases=_table(files.phases, phases.SCHEMA),
        requests=_table(files.requests, requests.SCHEMA),
        receipts=_table(files.receipts, receipts.SCHEMA),
        session=read_document(files.session, SessionDocument) if files.session else None,
        server_environment=read_document(environment, ServerEnvironmentDocument) if environment else None,
        model=read_document(model, ModelDocument) if model else None,
    )


def steady_windows(summary: SummaryDocument) -> list[SummaryWindow]:
    """Return the windows with realistic load, whose figures are headlines; other windows only feed the fit."""
    return [window for window in summary.cells if window.kind == "steady"]


def all_figures(summary: SummaryDocument) -> list[Figure]:
    """Return every figure of windows and idle baselines."""
    figures = [figure for window in summary.cells for figure in window.figures.values()]
    idle = [figure for row in summary.idle for figure in (row.cold_power_w, row.loaded_power_w, row.post_power_w)]
    return figures + idle


def device_label(domain: str, device: str) -> str:
    """Return a channel's name: `gpu GPU-4f1c...`, or `cpu` if the device is named after its domain."""
    return domain if device == domain else f"{domain} {device}"


def short_device(device: str) -> str:
    """Return a device's name without the long end of a UUID."""
    return device[:12] if device.upper().startswith("GPU-") else device


def labels(windows: Windows) -> list[str]:
    """Return a label for each window: its load, and if needed to tell windows apart, its name and machine."""
    texts = [window.load.text for window in windows]
    for names in ([window.cell for window in windows], [window.machine for window in windows]):
        uses = Counter(texts)
        texts = [text if uses[text] == 1 else f"{text}, {name}" for text, name in zip(texts, names, strict=True)]
    return texts


def _table(path: Path | None, schema: pa.Schema) -> pd.DataFrame | None:
    return None if path is None else read_table(path, schema)
