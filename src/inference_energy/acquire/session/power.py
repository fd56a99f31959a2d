"""The sampler for one server's devices, and the end of its log."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference_energy.acquire.gpus import cards_of
from inference_energy.acquire.power.characterise.profiles import averaging_windows_s
from inference_energy.acquire.power.process import SamplerStats
from inference_energy.acquire.power.simulated import simulated_node
from inference_energy.acquire.power.spec import SamplerSpec
from inference_energy.acquire.power.stream import compact
from inference_energy.contracts.power import summed_domains
from inference_energy.contracts.tables import read_metadata

LOG_BEYOND_S = 0.5
"""How long the log goes on after the last phase, two readings apart: a 1 s average tells of half a second earlier."""


def log_tail_s(power: Mapping[str, Any]) -> float:
    """How long the sampler must go on after the last phase, so that its readings reach beyond the phase's end."""
    return LOG_BEYOND_S + 2.0 * float(power["interval_s"])


def sampler_spec(
    power: Mapping[str, Any], gpus: list[str], *, status: Path | None = None, pid: int | None = None
) -> SamplerSpec:
    """What the sampler is asked to do.

    Args:
        power: the section of the configuration.
        gpus: UUIDs of the server's GPUs or MIG instances; an empty list leaves GPUs out.
        status: the guardian's status file, which tells the modelled source whose CPU time to count. A file that is
            never made stands for no server.
        pid: an attached server's process.
    """
    return SamplerSpec.parse(
        {
            **power,
            "gpus": gpus,
            "server_status": None if status is None else str(status.absolute()),
            "server_pid": pid,
            "averaging_windows_s": averaging_windows_s(cards_of(gpus)),
        }
    )


def finish_log(stats: SamplerStats, log: Path, target: Path) -> dict[str, Any]:
    """Make power.parquet from the sampler's stream; what it counted, for session.json."""
    held = compact(log, target)
    return {
        "sources": read_metadata(target).get("source", []),
        "rows": held.rows,
        "truncated": held.truncated,
        "ended_by": stats.ended_by,
        "elapsed_s": stats.elapsed_s,
        "channels": stats.channels,
        "faults": stats.faults,
    }


def labelled_power(latest: Mapping[str, float]) -> dict[str, float]:
    """The newest power of the domains that may be added up [W], for progress lines.

    Args:
        latest: the newest power of each domain. `cpu`, which no sensor has, is then called modelled, and all of a
            virtual node simulated.
    """
    summed = summed_domains(latest)
    return {_labelled(domain): power_w for domain, power_w in latest.items() if domain in summed}


def _labelled(domain: str) -> str:
    if simulated_node() is not None:
        return f"{domain} (simulated)"
    return f"{domain} (modelled)" if domain == "cpu" else domain
