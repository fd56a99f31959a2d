"""What is true of a simulated session: energies, tokens and powers over any stretch, and the energy of each request."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.bench.config import Node
from inference_energy.bench.offline.client import SentRequests
from inference_energy.bench.sensors.power_log import gpu_truth
from inference_energy.bench.truth.engine import BenchEngine
from inference_energy.bench.truth.ledger import BenchRequest, Ledger, ledger
from inference_energy.bench.truth.power_trace import TruePower, host_power


class Truth:
    """True values; times in ns, [start, end).

    Args:
        node: the settings.
        engines: one for each node.
        traces: their true power.
        sent: all requests.
        origin_ns: the moment the nodes began.
    """

    def __init__(
        self,
        node: Node,
        engines: Sequence[BenchEngine],
        traces: Sequence[NDArray[np.void]],
        sent: SentRequests,
        origin_ns: int,
    ) -> None:
        self._node = node
        self._engines = engines
        self._traces = traces
        self._sent = sent
        self._origin_ns = origin_ns

    @cached_property
    def _gpus(self) -> list[TruePower]:
        return [
            gpu_truth(self._node, trace, host, gpu, self._origin_ns)
            for host, trace in enumerate(self._traces)
            for gpu in range(self._node.tensor_parallel)
        ]

    def gpu_energy_j(self, start_ns: int, end_ns: int) -> float:
        """Energy of all GPUs, tenants included."""
        return sum(_between(power, start_ns, end_ns) for power in self._gpus)

    def host_energy_j(self, start_ns: int, end_ns: int) -> float:
        """Energy of the CPU packages and, with them, the memory beside."""
        packages_j = sum(_between(host_power(trace), start_ns, end_ns) for trace in self._traces)
        dram_w = self._node.nodes * self._node.engine.dram_w
        return packages_j + dram_w * (end_ns - start_ns) / 1e9

    def energy_j(self, start_ns: int, end_ns: int) -> float:
        """Energy inside the boundary that the node's sensors cover: the GPUs, and the host where it has RAPL."""
        host_j = self.host_energy_j(start_ns, end_ns) if self._node.sensors.rapl.present else 0.0
        return self.gpu_energy_j(start_ns, end_ns) + host_j

    def power_w(self, start_ns: int, end_ns: int) -> float:
        """Mean power of what `energy_j` holds."""
        return self.energy_j(start_ns, end_ns) / ((end_ns - start_ns) / 1e9)

    def output_tokens(self, start_ns: int, end_ns: int) -> int:
        """Tokens generated: those of the steps that ended in the stretch."""
        return self._counted("samples", start_ns, end_ns)

    def prompt_tokens(self, start_ns: int, end_ns: int) -> int:
        """Tokens of the prompts whose first token was made in the stretch."""
        return self._counted("prompts", start_ns, end_ns)

    def cached_tokens(self, start_ns: int, end_ns: int) -> int:
        """Those of them that came from the prefix cache."""
        return self._counted("cached", start_ns, end_ns)

    def _counted(self, column: str, start_ns: int, end_ns: int) -> int:
        total = 0
        for engine in self._engines:
            ends_ns = engine.segments.integers("end_ns")
            inside = (ends_ns >= start_ns) & (ends_ns < end_ns)
            total += int(engine.segments.integers(column)[inside].sum())
        return total

    @cached_property
    def ledgers(self) -> list[Ledger]:
        """Each node's energy, split to its requests in the order they were sent there."""
        return [
            ledger(engine.segments, self._of(number), engine.physics) for number, engine in enumerate(self._engines)
        ]

    @cached_property
    def request_energies(self) -> pd.DataFrame:
        """`request_id`, `prefill_energy_j` and `decode_energy_j` of each request, GPUs only."""
        frames = [
            pd.DataFrame(
                {
                    "request_id": [request.request_id for request in self._of(number)],
                    "prefill_energy_j": own.prefill_j,
                    "decode_energy_j": own.decode_j,
                }
            )
            for number, own in enumerate(self.ledgers)
        ]
        return pd.concat(frames).sort_values("request_id", ignore_index=True)

    def _of(self, node: int) -> list[BenchRequest]:
        return [request for request, where in zip(self._sent.request, self._sent.node, strict=True) if where == node]


def _between(power: TruePower, start_ns: int, end_ns: int) -> float:
    start_j, end_j = power.energy_j(np.array([start_ns, end_ns], dtype=np.int64))
    return float(end_j - start_j)
