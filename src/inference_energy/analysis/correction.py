"""What a calibration does to one channel: E' = gain E + offset T."""

import math
from dataclasses import dataclass
from typing import Any

from inference_energy.contracts.calibration import NODE


@dataclass(frozen=True)
class Correction:
    """One channel's part of an entry of calibration.json.

    An entry is for the sum of its channels. All have its gain, and each an equal part of its offset, so that they sum
    to what the entry gives; a part of them alone means nothing.

    Attributes:
        entry: its name.
        gain: of the entry.
        offset_w: this channel's part.
        u_gain, u_offset_w, covariance_w: the entry's standard uncertainties and covariance, for the sum.
        dof: degrees of freedom behind them.
        basis: the meter and the date, in words.
    """

    entry: str
    gain: float
    offset_w: float
    u_gain: float
    u_offset_w: float
    covariance_w: float
    dof: float
    basis: str

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Correction":
        """The correction of each of an entry's channels, from the entry in energy.json.

        Where the phases scattered more than their own uncertainties say, the entry's were widened by that scatter
        (`calibrate`), and n phases have n - 2 degrees of freedom; else the uncertainties are known beforehand.
        """
        scattered = record["chi2_per_dof"] > 1
        return cls(
            entry=record["name"],
            gain=record["gain"],
            offset_w=record["offset_w"] / len(record["channels"]),
            u_gain=record["u_gain"],
            u_offset_w=record["u_offset_w"],
            covariance_w=record["covariance_w"],
            dof=float(max(record["phases"] - 2, 1)) if scattered else math.inf,
            basis=f"{record['meter']}, {record['date'][:10]}",
        )

    @property
    def is_of_node(self) -> bool:
        """Whether the meter saw the whole machine, whatever the channels are of."""
        return self.entry == NODE

    def raw_j(self, energy_j: float, duration_s: float) -> float:
        """The energy before the correction, from that after it; time 0 for an energy above idle."""
        return (energy_j - self.offset_w * duration_s) / self.gain
