"""The inputs of the metrics: a window's figures, bins, devices, requests and receipts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from inference_energy.analysis.integration import Times, Values
from inference_energy.analysis.power_series import Correction, channel_label
from inference_energy.analysis.windows import bin_edges
from inference_energy.contracts.documents.energy import CarbonDocument, DeviceEnergy, EnergyDocument, EnergyWindow
from inference_energy.contracts.documents.machine import ModelDocument
from inference_energy.contracts.documents.windows import LoadWindow, SteadyLoadDocument
from inference_energy.contracts.figure import Figure

BASES = ("total", "active", "marginal")
IdleKind = Literal["cold", "loaded"]
IDLE_OF: dict[str, IdleKind] = {"active": "cold", "marginal": "loaded"}
"""The idle power that a basis subtracts."""


@dataclass(frozen=True)
class Devices:
    """Measurements by device, under the names of the channels.

    Attributes:
        energies_j: energy of each device over the window.
        idle_w: power of each device in the cold and in the loaded idle; empty without one.
        corrections: corrections of the calibrated devices.
    """

    energies_j: dict[str, float]
    idle_w: dict[IdleKind, dict[str, float]]
    corrections: dict[str, Correction]


@dataclass(frozen=True)
class WindowInputs:
    """The inputs of one window.

    Attributes:
        machine: name of the machine.
        session: name of the session.
        server: name of the server.
        name: name of the window in its session.
        kind: `steady`, `prefill` or `decode`.
        workload: name of the workload.
        times_ns: start and end after trimming.
        figures: figures of the summary: energies, loads, carbon and water.
        bins: sums over each bin of the window: `energy_total_j`, and counts under the names of their figures.
        devices: measurements by device.
        idle: powers of the cold and the loaded idle.
        requests: rows of requests.parquet of the window.
        receipts: rows of receipts.parquet of the window.
        prompts: prompts.parquet of the session.
        answers: rows of answers.parquet of the window; None if answers were not kept.
        model: model.json of the server; None before the requests are added.
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
    model: ModelDocument | None = None

    @property
    def full_name(self) -> str:
        """The name in the summary, `<session>.<window>`."""
        return f"{self.session}.{self.name}"

    @property
    def key(self) -> tuple[str, str]:
        """Machine and full name, which identify a window in an experiment."""
        return self.machine, self.full_name

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
        """Return the energy of each bin on a basis; None if the energy of the bins is not known."""
        energy_j = self.bins.get("energy_total_j")
        kind = IDLE_OF.get(basis)
        if energy_j is None or kind is None:
            return energy_j
        idle_w = self.idle[kind].value
        return None if idle_w is None else np.asarray(energy_j - idle_w * self.lengths_s, dtype=np.float64)

    def finished(self) -> pd.DataFrame:
        """Return the requests that ended well in the window, which its figure `requests` counts."""
        rows = self.requests
        ends = rows["last_token_ns"].fillna(rows["end_ns"])
        inside = (ends >= self.times_ns[0]) & (ends < self.times_ns[1])
        return rows[(rows["status"] == "ok") & inside.fillna(False).astype(bool)]


def read_windows(energy: EnergyDocument, steady: SteadyLoadDocument, carbon: CarbonDocument) -> list[WindowInputs]:
    """Return the windows of a session from its derived documents, without requests."""
    calibration = energy.calibration
    entries = {entry.name: Correction.from_entry(entry) for entry in calibration.applied} if calibration else {}
    return [
        _window(energy, name, window, steady.windows[name], carbon.windows[name].figures, entries)
        for name, window in energy.windows.items()
    ]


def _window(
    energy: EnergyDocument,
    name: str,
    window: EnergyWindow,
    load: LoadWindow,
    impact: Mapping[str, Figure],
    corrections: Mapping[str, Correction],
) -> WindowInputs:
    summed = [device for device in window.devices if device.summed and device.energy_j is not None]
    bins: dict[str, list[float] | list[int] | None] = {"energy_total_j": window.bins.energy_total_j, **load.bins}
    return WindowInputs(
        machine=energy.machine,
        session=energy.session,
        server=energy.server,
        name=name,
        kind=load.kind,
        workload=load.load.workload,
        times_ns=(window.start_ns, window.end_ns),
        figures={**window.figures, **load.figures, **impact},
        bins={key: np.asarray(values, dtype=np.float64) for key, values in bins.items() if values is not None},
        devices=Devices(
            {_channel(device): device.energy_j or 0.0 for device in summed},
            {"cold": energy.idle_devices_w.cold, "loaded": energy.idle_devices_w.loaded},
            {_channel(device): corrections[device.calibration.name] for device in summed if device.calibration},
        ),
        idle={"cold": energy.idle.cold_power_w, "loaded": energy.idle.loaded_power_w},
    )


def _channel(device: DeviceEnergy) -> str:
    """Return the channel's name, as `PowerSeries.name` has it."""
    return f"{channel_label(device.domain, device.device)} ({device.source})"
