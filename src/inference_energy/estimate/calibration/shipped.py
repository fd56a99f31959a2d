"""Making calibrations: from a user's table, and those that are shipped, from the rows that are shipped."""

from pathlib import Path
from typing import Any

import numpy as np

from inference_energy.errors import InputError
from inference_energy.estimate.calibration.fit import fit_rows
from inference_energy.estimate.calibration.record import SHIPPED
from inference_energy.estimate.measured.rows import PUBLISHED, WINDOWS, MeasuredRow, read_rows, shipped_rows


def fit_table(path: Path, name: str | None = None) -> dict[str, Any]:
    """The calibration of a table of measured rows; see `fit_rows`."""
    rows = read_rows(path)
    return fit_rows(rows, name or path.stem, {"table": path.name, "sources": _sources(rows)})


def fit_shipped(name: str) -> dict[str, Any]:
    """A shipped calibration, fitted anew.

    Raises:
        InputError: none of that name is shipped.
    """
    if name not in SHIPPED:
        raise InputError(f"--shipped {name}: there are {', '.join(SHIPPED)}")
    rows = dense_16_bit() if name == SHIPPED[0] else windows_with_batch()
    table = PUBLISHED if name == SHIPPED[0] else WINDOWS
    which = "dense models with 16 bit weights" if name == SHIPPED[0] else "windows whose batch is known"
    provenance = {
        "table": f"estimate/data/{table}",
        "which": which,
        "sources": _sources(rows),
        "command": f"inference-energy estimate fit --shipped {name} --output calibration-{name}.json",
    }
    return fit_rows(rows, name, provenance)


def dense_16_bit() -> list[MeasuredRow]:
    """The published rows that `h100-published` is fitted to."""
    return [
        row
        for row in shipped_rows(PUBLISHED)
        if row.use == "score" and not row.shape.is_moe and row.shape.weights.name == "bf16"
    ]


def windows_with_batch() -> list[MeasuredRow]:
    """The measured windows that `h100-windows` is fitted to."""
    return [row for row in shipped_rows(WINDOWS) if row.is_prefill or not np.isnan(row.batch)]


def _sources(rows: list[MeasuredRow]) -> list[str]:
    return list(dict.fromkeys(row.source for row in rows if row.source))
