"""Which power sources a run uses: those asked for, or the best that this machine has."""

from collections.abc import Sequence
from typing import Literal

from inference_energy.acquire.power.base import PowerSource, SourceState
from inference_energy.acquire.power.cputime import CpuTime, MachineCpuTime, StatusFilePid, TreeCpuTime
from inference_energy.acquire.power.modelled import ModelledSource
from inference_energy.acquire.power.nvml import NvmlSource
from inference_energy.acquire.power.rapl import POWERCAP, RaplSource
from inference_energy.acquire.power.simulated import labelled, simulated_node
from inference_energy.acquire.power.spec import SamplerSpec
from inference_energy.errors import InputError


def candidates(spec: SamplerSpec) -> list[PowerSource]:
    """Every source there is, set up for this run but not opened. A new source goes in here."""
    node = simulated_node()
    sources = [
        NvmlSource(spec.gpus),
        RaplSource(node / "powercap" if node else POWERCAP),
        ModelledSource(_cpu_time(spec), spec.modelled.tdp_w, spec.modelled.idle_w),
    ]
    return [labelled(source) for source in sources]


def all_states(sources: Sequence[PowerSource]) -> list[SourceState]:
    """What each source says about this machine, in the order of `sources`."""
    return [source.state() for source in sources]


def choose(wanted: Literal["auto"] | Sequence[str], sources: Sequence[PowerSource]) -> list[PowerSource]:
    """Pick from `sources`.

    `auto` takes every source that measures, and one that models only where none measures. A list takes exactly those
    named.

    Raises:
        InputError: a named source is unknown or does not work here, or none does; the message gives the reason of each.
    """
    if not wanted:
        raise InputError('power.sources is empty: write "auto" or a list of names')
    by_name = {source.name: source for source in sources}
    if isinstance(wanted, str):
        if wanted != "auto":
            raise InputError(f'power.sources is {wanted!r}: write "auto" or a list such as [{next(iter(by_name))}]')
        return _best(sources)
    chosen = []
    for name in dict.fromkeys(wanted):
        if name not in by_name:
            raise InputError(f'power.sources names {name!r}: write "auto" or a list of {", ".join(by_name)}')
        state = by_name[name].state()
        if not state.available:
            raise InputError(f"power.sources names {name}, which does not work here: {state.reason}")
        chosen.append(by_name[name])
    return chosen


def _best(sources: Sequence[PowerSource]) -> list[PowerSource]:
    states = dict(zip(sources, all_states(sources), strict=True))
    for source, state in states.items():
        if source.demanded_by and not state.available:
            raise InputError(f"{source.demanded_by}: {state.reason}")
    available = [source for source, state in states.items() if state.available]
    measuring = [source for source in available if source.measures]
    if not available:
        reasons = "".join(f"\n  {state.name}: {state.reason}" for state in states.values())
        raise InputError(f"power.sources: no power source works on this machine{reasons}")
    return measuring or available


def _cpu_time(spec: SamplerSpec) -> CpuTime:
    if spec.server_status is not None:
        return TreeCpuTime(StatusFilePid(spec.server_status))
    if spec.server_pid is not None:
        pid = spec.server_pid
        return TreeCpuTime(lambda: pid)
    return MachineCpuTime()
