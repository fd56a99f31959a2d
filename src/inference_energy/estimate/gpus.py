"""GPUs by their data sheets (data/gpus.csv): power, bandwidth, memory, and *dense* peak by precision.

Vendors print peaks with 2:4 sparsity, which LLM serving does not use; the table has the peaks without it.
`node_w_per_gpu` is an eighth of the largest power of the vendor's own 8-GPU system, if there is one. Weights of 4 bit
are computed in 16 bit (weight-only quantisation), and so are fp8 weights on a GPU without fp8.
"""

import csv
import difflib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from inference_energy.errors import InputError
from inference_energy.estimate.shapes.precision import Precision


@dataclass(frozen=True)
class GpuSheet:
    """One row of the table; None where the data sheet has no such figure.

    Attributes:
        name: the GPU's name in the table.
        aliases: other names a user may write.
        driver_names: names that its driver reports.
        tdp_w: power limit as sold [W].
        memory_bytes: the card's memory.
        bandwidth_bytes_per_s: bandwidth of that memory.
        bf16_flops: dense peak of 16 bit with 32 bit accumulation [1/s].
        fp8_flops: dense peak of fp8.
        int8_flops: dense peak of int8.
        node_w: a GPU's share of its node's largest power [W].
        source: where the figures are from.
        note: a remark on the figures.
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
        """Return the dense peak at which weights of this precision are computed [1/s]."""
        peak = {"fp8": self.fp8_flops, "int8": self.int8_flops}.get(precision)
        return self.bf16_flops if peak is None else peak


@cache
def gpus() -> dict[str, GpuSheet]:
    """Return the GPUs of the table by name."""
    text = files("inference_energy.estimate").joinpath("data/gpus.csv").read_text()
    return {row["name"]: _gpu(row) for row in csv.DictReader(text.splitlines())}


def find_gpu(name: str, key: str = "gpu") -> GpuSheet:
    """Return the GPU of this name, alias or driver's name, ignoring case; messages name `key`, an argument or column.

    A name that only one GPU has in full, such as `H100 SXM5 80GB`, stands for it as well.

    Raises:
        InputError: the table has no such GPU, or several: cards of one name differ in memory, bandwidth and power.
    """
    lower_name = "-".join(name.lower().split())
    for gpu in gpus().values():
        if lower_name in ("-".join(known.lower().split()) for known in (gpu.name, *gpu.aliases, *gpu.driver_names)):
            return gpu
    words = _words(name)
    found = [gpu for gpu in gpus().values() if words and words <= _words(gpu.name, *gpu.aliases, *gpu.driver_names)]
    of_one_kind = [gpu for gpu in found if _KIND_WORD.search(name)]
    if len(of_one_kind) == 1:
        return of_one_kind[0]
    if found:
        raise InputError(f"{_shown(name)} may be any of {', '.join(gpu.name for gpu in found)}; write one", key=key)
    near = difflib.get_close_matches(lower_name, [gpu.lower() for gpu in gpus()], n=4, cutoff=0.5)
    names = [gpu for gpu in gpus() if gpu.lower() in near]
    nearest = f"; the nearest are {', '.join(names)}" if names else ""
    raise InputError(
        f"{_shown(name)} is not in the table of data sheets{nearest}; there are: {', '.join(gpus())}", key=key
    )


_KIND_WORD = re.compile(r"[A-Za-z]+\d{2}|\d{4}")
"""The part of a name that tells the kind of card, such as H100 or 4090."""


def _words(*names: str) -> set[str]:
    """Return the words of names; the names of vendors and product lines are left out."""
    words = {word for name in names for word in re.split(r"[^a-z0-9]+", name.lower()) if word}
    return words - {"nvidia", "amd", "tesla", "instinct", "geforce", "gpu"}


def _shown(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:57]}..."


def gpu_of_driver(driver_name: str) -> GpuSheet | None:
    """Return the GPU with this driver name, such as `NVIDIA H100 80GB HBM3`; None if the table has none."""
    lower_name = driver_name.strip().lower()
    return next((gpu for gpu in gpus().values() if lower_name in map(str.lower, gpu.driver_names)), None)


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
