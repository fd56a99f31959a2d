"""The cost of the load client on the machine that it measured.

    CPU seconds per 1,000 output tokens   client's CPU seconds in the window / its output tokens x 1,000: counted
    share of busy CPU time                client's CPU seconds / the machine's busy CPU seconds: counted
    client's energy                       that share x the CPU packages' energy over the window: modelled

The model of the energy takes every busy second to cost the same, and charges the client its part of the packages' idle
power too. It is given only where a sensor measured the packages.
"""

from collections.abc import Sequence

from inference_energy.analysis.figures import make_figure
from inference_energy.analysis.power_series import PowerSeries
from inference_energy.contracts.documents.session import LoadClient
from inference_energy.contracts.documents.windows import ClientCost
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.reason_codes import reason

CPU_PACKAGE = "cpu_package"


def client_cost(
    client: LoadClient | None, busy_cpu_s: float | None, cell: str, output_tokens: int, missing: Sequence[Reason] = ()
) -> ClientCost | None:
    """Return the counted cost of the client in a window and its drain; None where the session did not record it.

    Args:
        client: the load processes' CPU time.
        busy_cpu_s: busy CPU time of the machine in the window; None where it was not recorded.
        cell: name of the window.
        output_tokens: generated tokens of the whole window by the client.
        missing: why that count is not whole.
    """
    cell_use = client.cells.get(cell) if client else None
    if client is None or cell_use is None:
        return None
    cpu_s = float(cell_use.cpu_s)
    workers = client.workers or []
    peaks = [worker.peak_rss_bytes for worker in workers if worker.peak_rss_bytes]
    return ClientCost(
        cpu_s=cpu_s,
        busy_cpu_s=busy_cpu_s,
        output_tokens=None if missing else output_tokens,
        workers=len(workers),
        peak_rss_bytes=sum(int(peak) for peak in peaks if peak) if peaks else None,
        figures={
            "cpu_s_per_1k_output_tokens": _cpu_per_1k_tokens(cpu_s, output_tokens, missing),
            "share_of_busy_cpu": _busy_share(cpu_s, busy_cpu_s),
        },
    )


def client_energy(
    cost: ClientCost | None, power: Sequence[PowerSeries], start_ns: int, end_ns: int, total: Figure
) -> dict[str, Figure]:
    """Return the modelled `energy_j` and `share_of_energy` of the client; nothing without a cost.

    Args:
        cost: counted cost of the client.
        power: the summed channels.
        start_ns: start of the window.
        end_ns: end of the window.
        total: total energy of the window.
    """
    if cost is None:
        return {}
    share = cost.figures["share_of_busy_cpu"]
    packages = [channel for channel in power if channel.domain == CPU_PACKAGE and channel.grade != "modelled"]
    reasons = [*share.reasons]
    if not packages:
        reasons.append(
            reason("client_energy_unknown", "No sensor measured the CPU, so the client's part of it is not known.")
        )
    elif not all(channel.spans(start_ns, end_ns) for channel in packages):
        reasons.append(reason("client_energy_unknown", "The CPU's power log does not cover the window."))
    value = None
    if not reasons and share.value is not None:
        value = share.value * sum(channel.energy_j(start_ns, end_ns) for channel in packages)
    energy = make_figure(value, "J", boundary=CPU_PACKAGE, grade="modelled", basis="total", reasons=reasons)
    share_reasons = [*energy.reasons, *(total.reasons if total.value is None else [])]
    part = value / total.value if value is not None and total.value else None
    if part is None and not share_reasons:
        share_reasons.append(reason("client_energy_unknown", "The window took no energy."))
    return {
        "energy_j": energy,
        "share_of_energy": make_figure(part, "share", boundary=total.boundary, grade="modelled", reasons=share_reasons),
    }


def _cpu_per_1k_tokens(cpu_s: float, output_tokens: int, missing: Sequence[Reason]) -> Figure:
    reasons = [*missing]
    if not output_tokens and not reasons:
        reasons.append(reason("no_tokens", "The cell has no output token."))
    value = 1000 * cpu_s / output_tokens if output_tokens else None
    return make_figure(value, "s/1k tokens", boundary="client", grade="counted", reasons=reasons)


def _busy_share(cpu_s: float, busy_cpu_s: float | None) -> Figure:
    reasons = []
    if not busy_cpu_s:
        reasons = [reason("client_energy_unknown", "How long the machine's CPUs were busy was not recorded.")]
    value = min(cpu_s / busy_cpu_s, 1.0) if busy_cpu_s else None
    return make_figure(value, "share", boundary="machine", grade="counted", reasons=reasons)
