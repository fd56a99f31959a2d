"""A live run on the bench, through the real pipeline, beside the truth that the virtual node kept."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from inference_energy.bench.live.node import NodeFolder
from inference_energy.bench.live.trace_file import TraceReader
from inference_energy.bench.live.truth_files import STEPS, read
from inference_energy.bench.truth.trace import TruePower, WithTenants
from inference_energy.contracts import phases as phases_contract
from inference_energy.contracts.tables import read_json, read_table
from inference_energy.errors import RunError
from inference_energy.validation.trial import Outcome, outcome


class LiveTruth:
    """What is true of a node that has run: energies and tokens over any stretch; times in monotonic ns, [start, end).

    Args:
        node: its folder.
    """

    def __init__(self, node: NodeFolder) -> None:
        self._node = node.node
        reader = TraceReader(node.traces, node.node, node.origin_ns)
        reader.look()
        self._host: TruePower = reader.host
        self._gpus = [
            WithTenants(reader.gpu, [t for t in self._node.faults.tenants if t.device == gpu], node.origin_ns)
            for gpu in range(self._node.tensor_parallel)
        ]
        steps = [read(folder, STEPS) for folder in sorted(node.truth.iterdir())]
        held = [table for table in steps if table.num_rows]
        self._steps = {
            name: np.concatenate([table[name].to_numpy() for table in held]) if held else np.zeros(0, dtype=np.int64)
            for name in ("end_ns", "samples", "prompts")
        }

    def energy_j(self, start_ns: int, end_ns: int) -> float:
        """Energy inside the boundary that the node's sensors cover: the GPUs, and the host where it has RAPL."""
        times_ns = np.array([start_ns, end_ns], dtype=np.int64)
        total_j = sum(float(np.diff(gpu.energy_j(times_ns))[0]) for gpu in self._gpus)
        if self._node.sensors.rapl.present:
            dram_j = self._node.engine.dram_w * (end_ns - start_ns) / 1e9
            total_j += float(np.diff(self._host.energy_j(times_ns))[0]) + dram_j
        return total_j

    def power_w(self, start_ns: int, end_ns: int) -> float:
        """Mean power of what `energy_j` holds."""
        return self.energy_j(start_ns, end_ns) / ((end_ns - start_ns) / 1e9)

    def tokens(self, column: str, start_ns: int, end_ns: int) -> int:
        """Tokens generated (`samples`) or of prompts read (`prompts`), by the ends of the steps that made them."""
        ends_ns = self._steps["end_ns"]
        return int(self._steps[column][(ends_ns >= start_ns) & (ends_ns < end_ns)].sum())


def compare_live(node: NodeFolder, raw_root: Path, summary: Path) -> list[tuple[str, Outcome]]:
    """Every figure that has a truth, with the window (or `idle`) it belongs to.

    Args:
        node: the node that the experiment ran on.
        raw_root: the folder of raw results, for the times of the idle phases.
        summary: the experiment's summary.json.

    Raises:
        RunError: the summary is of other sessions than the node saw.
    """
    truth = LiveTruth(node)
    found = read_json(summary)
    rows: list[tuple[str, Outcome]] = []
    for idle in found["idle"]:
        here = raw_root / idle["machine"]
        cold = read_json(here / "idle" / idle["server"] / "idle.json")
        spans = {"cold": (int(cold["start_ns"]), int(cold["end_ns"]))}
        frame = read_table(here / "sessions" / idle["session"] / "phases.parquet", phases_contract.SCHEMA)
        for kind, name in (("loaded", "loaded_idle"), ("post", "post_idle")):
            phase = frame[frame["phase"] == name]
            if len(phase):
                spans[kind] = (int(phase["start_ns"].iloc[0]), int(phase["end_ns"].iloc[0]))
        if spans["cold"][0] < node.origin_ns:
            raise RunError(f"{summary}: measured before this node began; measure anew")
        rows += [
            ("idle", outcome(f"{kind} idle power", truth.power_w(*span), idle[f"{kind}_power_w"]))
            for kind, span in spans.items()
        ]
        cold_w = truth.power_w(*spans["cold"])
        for cell in found["cells"]:
            if cell["session"] == idle["session"]:
                rows += ((cell["window"]["name"], own) for own in _window(cell, truth, cold_w))
    return rows


def _window(cell: dict[str, Any], truth: LiveTruth, cold_w: float) -> Iterator[Outcome]:
    start_ns, end_ns, figures = cell["window"]["start_ns"], cell["window"]["end_ns"], cell["figures"]
    total_j = truth.energy_j(start_ns, end_ns)
    active_j = total_j - cold_w * (end_ns - start_ns) / 1e9
    tokens = truth.tokens("samples", start_ns, end_ns)
    yield outcome("energy, total", total_j, figures["energy_total_j"])
    yield outcome("energy, active", active_j, figures["energy_active_j"])
    yield outcome("output tokens", tokens, figures["output_tokens"])
    yield outcome("prompt tokens", truth.tokens("prompts", start_ns, end_ns), figures["prompt_tokens"])
    yield outcome("J/output token, total", total_j / tokens, figures["energy_total_per_output_token_j"])
    yield outcome("J/output token, active", active_j / tokens, figures["energy_active_per_output_token_j"])
