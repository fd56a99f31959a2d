"""What the load client took of the machine that it measured.

    CPU seconds per 1,000 output tokens   client's CPU seconds in the cell / its output tokens x 1,000: counted
    share of busy CPU time                client's CPU seconds / the machine's busy CPU seconds in the cell: counted
    client's energy                       that share x the CPU packages' energy over the window: modelled

The last takes every busy second to cost the same and charges the client its part of the packages' idle power too. It is
given only where a sensor measured the packages.
"""

from typing import Any

from inference_energy.analysis.figures import figure_from_dict, make_figure, reason
from inference_energy.analysis.power_series import PowerSeries
from inference_energy.contracts.figure import Figure

CPU_PACKAGE = "cpu_package"


def client_cost(session: dict[str, Any], cell: str, output_tokens: int) -> dict[str, Any] | None:
    """The counted part of a cell.

    Args:
        session: session.json; its `client` holds the load processes' CPU time, `machine_cpu` the machine's.
        cell: whose.
        output_tokens: of the client's usage, in the whole cell.

    Returns:
        `cpu_s`, `busy_cpu_s`, `output_tokens`, `workers`, `peak_rss_bytes`, and `figures`; None where the session did
        not record it.
    """
    client = session.get("client") or {}
    own = (client.get("cells") or {}).get(cell)
    if own is None:
        return None
    cpu_s = float(own["cpu_s"])
    busy_s = ((session.get("machine_cpu") or {}).get(cell) or {}).get("busy_s")
    workers = client.get("workers") or []
    peaks = [worker["peak_rss_bytes"] for worker in workers if worker.get("peak_rss_bytes")]
    return {
        "cpu_s": cpu_s,
        "busy_cpu_s": busy_s,
        "output_tokens": output_tokens,
        "workers": len(workers),
        "peak_rss_bytes": sum(peaks) if peaks else None,
        "figures": {
            "cpu_s_per_1k_output_tokens": _per_1k(cpu_s, output_tokens).as_dict(),
            "share_of_busy_cpu": _share(cpu_s, busy_s).as_dict(),
        },
    }


def client_energy(
    cost: dict[str, Any] | None, power: list[PowerSeries], start_ns: int, end_ns: int, total: Figure
) -> dict[str, Figure]:
    """The modelled part: `energy_j`, and `share_of_energy` of the window's total energy; nothing without a cost.

    Args:
        cost: of the window's cell, from `client_cost`.
        power: the channels that are added up.
        start_ns: start of the window.
        end_ns: its end.
        total: the window's energy.
    """
    if cost is None:
        return {}
    share = figure_from_dict(cost["figures"]["share_of_busy_cpu"])
    packages = [one for one in power if one.domain == CPU_PACKAGE and one.grade != "modelled"]
    reasons = [*share.reasons]
    if not packages:
        reasons.append(
            reason("client_energy_unknown", "No sensor measured the CPU, so the client's part of it is not known.")
        )
    elif not all(one.covers(start_ns, end_ns) for one in packages):
        reasons.append(reason("client_energy_unknown", "The CPU's power log does not cover the window."))
    value = None
    if not reasons and share.value is not None:
        value = share.value * sum(one.energy_j(start_ns, end_ns) for one in packages)
    energy = make_figure(value, "J", boundary=CPU_PACKAGE, grade="modelled", basis="total", reasons=reasons)
    against = [*energy.reasons, *(total.reasons if total.value is None else [])]
    part = value / total.value if value is not None and total.value else None
    if part is None and not against:
        against.append(reason("client_energy_unknown", "The window took no energy."))
    return {
        "energy_j": energy,
        "share_of_energy": make_figure(part, "share", boundary=total.boundary, grade="modelled", reasons=against),
    }


def _per_1k(cpu_s: float, output_tokens: int) -> Figure:
    reasons = [] if output_tokens else [reason("no_tokens", "The cell has no output token.")]
    value = 1000 * cpu_s / output_tokens if output_tokens else None
    return make_figure(value, "s/1k tokens", boundary="client", grade="counted", reasons=reasons)


def _share(cpu_s: float, busy_s: float | None) -> Figure:
    reasons = []
    if not busy_s:
        reasons = [reason("client_energy_unknown", "How long the machine's CPUs were busy was not recorded.")]
    value = min(cpu_s / busy_s, 1.0) if busy_s else None
    return make_figure(value, "share", boundary="machine", grade="counted", reasons=reasons)
