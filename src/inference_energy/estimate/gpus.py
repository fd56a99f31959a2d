"""GPUs by their data sheets (data/gpus.csv): power, bandwidth, memory, and *dense* peak by precision.

Vendors print peaks with 2:4 sparsity, which LLM serving does not use; the table has those without. `node_w_per_gpu` is
an eighth of the largest power of the vendor's own 8-GPU system, where there is one. Weights of 4 bit are computed in
16 bit (weight-only quantisation), and so are fp8 weights on a GPU without fp8.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from inference_energy.errors import InputError
from inference_energy.estimate.shapes.precision import Precision


@dataclass(frozen=True)
class GpuSheet:
    """One row of the table; None where the data sheet has no such figure.

    Attributes:
        name: in the table.
        aliases: other names it is asked for by.
        driver_names: what its driver calls it.
        tdp_w: power limit as sold [W].
        memory_bytes: of the card.
        bandwidth_bytes_per_s: of its memory.
        bf16_flops: dense peak of 16 bit with 32 bit accumulation [1/s].
        fp8_flops: dense peak of fp8.
        int8_flops: dense peak of int8.
        node_w: a GPU's share of its node at most [W].
        source: where the figures are from.
        note: what to know about them.
    """

    name: str
    aliases: tuple[str, ...]
    driver_names: tuple[str, ...]
    tdp_w: float
    memory_bytes: float
    bandwidth_bytes_per_s: float
    bf16_flops: float
    fp8_flops: float | None
    int8_flops: float | None
    node_w: float | None
    source: str
    note: str

    def peak_flops(self, precision: Precision) -> float:
        """Dense peak at which weights of this precision are computed [1/s]."""
        own = {"fp8": self.fp8_flops, "int8": self.int8_flops}.get(precision)
        return self.bf16_flops if own is None else own


@cache
def gpus() -> dict[str, GpuSheet]:
    """The table by name."""
    text = files("inference_energy.estimate").joinpath("data/gpus.csv").read_text()
    return {row["name"]: _gpu(row) for row in csv.DictReader(text.splitlines())}


def find_gpu(name: str, key: str = "--gpu") -> GpuSheet:
    """The GPU of this name or alias, whatever its capitals; `key` is what a message calls the place of the name.

    Raises:
        InputError: there is none.
    """
    wanted = name.lower().replace(" ", "-")
    for gpu in gpus().values():
        if wanted in (one.lower() for one in (gpu.name, *gpu.aliases)):
            return gpu
    raise InputError(f"{key}: {name} is not in the table of data sheets; there are: {', '.join(gpus())}")


def gpu_of_driver(driver_name: str) -> GpuSheet | None:
    """The GPU that a driver calls so, such as `NVIDIA H100 80GB HBM3`; None where the table has none."""
    wanted = driver_name.strip().lower()
    return next((gpu for gpu in gpus().values() if wanted in (one.lower() for one in gpu.driver_names)), None)


def _gpu(row: dict[str, str]) -> GpuSheet:
    def scaled(key: str, factor: float) -> float | None:
        return float(row[key]) * factor if row[key] else None

    return GpuSheet(
        name=row["name"],
        aliases=tuple(filter(None, row["aliases"].split("|"))),
        driver_names=tuple(filter(None, row["driver_names"].split("|"))),
        tdp_w=float(row["tdp_w"]),
        memory_bytes=float(row["memory_gb"]) * 1e9,
        bandwidth_bytes_per_s=float(row["bandwidth_gb_per_s"]) * 1e9,
        bf16_flops=float(row["bf16_tflops"]) * 1e12,
        fp8_flops=scaled("fp8_tflops", 1e12),
        int8_flops=scaled("int8_tops", 1e12),
        node_w=scaled("node_w_per_gpu", 1.0),
        source=row["source"],
        note=row["note"],
    )
