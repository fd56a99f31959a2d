"""A window as the metrics take it: its figures, its course second by second, its devices, and its requests."""

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
import pandas as pd

from inference_energy.analysis.figures import figure_from_dict
from inference_energy.analysis.integration import Times, Values
from inference_energy.analysis.power_series import Correction, channel_label
from inference_energy.analysis.windows import bin_edges
from inference_energy.contracts.documents.energy import CalibrationEntry
from inference_energy.contracts.figure import Figure

BASES = ("total", "active", "marginal")
IdleKind = Literal["cold", "loaded"]
IDLE_OF: dict[str, IdleKind] = {"active": "cold", "marginal": "loaded"}
"""Which idle power a basis subtracts."""


@dataclass(frozen=True)
class Devices:
    """What was measured, device by device, by the channels' names.

    Attributes:
        energies_j: energy of each over the window.
        idle_w: power of each in the cold and in the loaded idle; empty where there was none.
        corrections: what a calibration did to those that it was applied to.
    """

    energies_j: dict[str, float]
    idle_w: dict[IdleKind, dict[str, float]]
    corrections: dict[str, Correction]


@dataclass(frozen=True)
class MetricCell:
    """One window.

    Attributes:
        figures: those of the summary: energies, loads, carbon and water.
        bins: sums over each bin of the window: `energy_total_j`, and counts under the names of their figures.
        idle: powers of the cold and the loaded idle.
        requests: the cell's rows of requests.parquet.
        receipts: the cell's rows of receipts.parquet.
        prompts: prompts.parquet of the session.
        answers: the cell's rows of answers.parquet; None where answers were not kept.
        model: model.json of the server.
    """

    machine: str
    session: str
    server: str
    name: str
    kind: str
    workload: str
    times_ns: tuple[int, int]
    figures: dict[str, Figure]
    bins: dict[str, Values]
    devices: Devices
    idle: dict[IdleKind, Figure]
    requests: pd.DataFrame = field(default_factory=pd.DataFrame)
    receipts: pd.DataFrame = field(default_factory=pd.DataFrame)
    prompts: pd.DataFrame = field(default_factory=pd.DataFrame)
    answers: pd.DataFrame | None = None
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def cell(self) -> str:
        """The name in the summary."""
        return f"{self.session}.{self.name}"

    @property
    def duration_s(self) -> float:
        """Length of the window."""
        return (self.times_ns[1] - self.times_ns[0]) / 1e9

    @property
    def edges_ns(self) -> Times:
        """Edges of the bins."""
        return bin_edges(*self.times_ns)

    @property
    def lengths_s(self) -> Values:
        """Lengths of the bins."""
        return np.asarray(np.diff(self.edges_ns) / 1e9, dtype=np.float64)

    def above_idle_j(self, basis: str) -> Values | None:
        """Energy of each bin on a basis; None where the course of the energy is not known."""
        energy_j = self.bins.get("energy_total_j")
        kind = IDLE_OF.get(basis)
        if energy_j is None or kind is None:
            return energy_j
        idle_w = self.idle[kind].value
        return None if idle_w is None else np.asarray(energy_j - idle_w * self.lengths_s, dtype=np.float64)

    def finished(self) -> pd.DataFrame:
        """The requests that ended well in the window, which its `requests` counts."""
        rows = self.requests
        ends = rows["last_token_ns"].fillna(rows["end_ns"])
        inside = (ends >= self.times_ns[0]) & (ends < self.times_ns[1])
        return rows[(rows["status"] == "ok") & inside.fillna(False).astype(bool)]


def read_cells(energy: dict[str, Any], steady: dict[str, Any], carbon: dict[str, Any]) -> list[MetricCell]:
    """The windows of a session from its derived files, without its requests.

    Args:
        energy: energy.json.
        steady: steady_load.json.
        carbon: carbon.json.
    """
    entries = {
        entry["name"]: Correction.from_entry(msgspec.convert(entry, CalibrationEntry))
        for entry in (energy.get("calibration") or {}).get("applied", [])
    }
    idle: dict[IdleKind, Figure] = {kind: figure_from_dict(energy["idle"][f"{kind}_power_w"]) for kind in _IDLES}
    idle_w: dict[IdleKind, dict[str, float]] = {kind: energy["idle_devices_w"][kind] for kind in _IDLES}
    found = []
    for name, window in energy["windows"].items():
        load, impact = steady["windows"][name], carbon["windows"][name]
        shown = {**window["figures"], **load["figures"], **impact["figures"]}
        summed = {_channel(d): d for d in window["devices"] if d["summed"] and d["energy_j"] is not None}
        course = {**window["bins"], **load["bins"]}
        found.append(
            MetricCell(
                machine=energy["machine"],
                session=energy["session"],
                server=energy["server"],
                name=name,
                kind=load["kind"],
                workload=str(load["load"]["workload"]),
                times_ns=(int(window["start_ns"]), int(window["end_ns"])),
                figures={key: figure_from_dict(content) for key, content in shown.items()},
                bins={key: np.asarray(v, dtype=np.float64) for key, v in course.items() if v is not None},
                devices=Devices(
                    {key: float(device["energy_j"]) for key, device in summed.items()},
                    idle_w,
                    {
                        key: entries[device["calibration"]["name"]]
                        for key, device in summed.items()
                        if device.get("calibration")
                    },
                ),
                idle=idle,
            )
        )
    return found


_IDLES: tuple[IdleKind, ...] = ("cold", "loaded")


def _channel(device: dict[str, Any]) -> str:
    """The channel's name, as `Channel.name` has it."""
    return f"{channel_label(device['domain'], device['device'])} ({device['source']})"
