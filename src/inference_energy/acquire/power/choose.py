"""Choice of a run's power sources: the configured ones, or the best that this machine has."""

from collections.abc import Callable, Sequence
from typing import Literal

from inference_energy.acquire.power.base import PowerSource, SourceState
from inference_energy.acquire.power.settings import SamplerSpec
from inference_energy.acquire.power.simulated import labelled, simulated_node
from inference_energy.acquire.power.sources.amd_smi import AmdSmiSource
from inference_energy.acquire.power.sources.cputime import CpuTime, MachineCpuTime, StatusFilePid, TreeCpuTime
from inference_energy.acquire.power.sources.dcgm import DcgmSource
from inference_energy.acquire.power.sources.ipmi import IpmiSource
from inference_energy.acquire.power.sources.modelled import ModelledSource
from inference_energy.acquire.power.sources.nvidia_smi import NvidiaSmiSource
from inference_energy.acquire.power.sources.nvml.source import NvmlSource
from inference_energy.acquire.power.sources.pcm_power import PcmPowerSource
from inference_energy.acquire.power.sources.pdu import PduSource
from inference_energy.acquire.power.sources.rapl import RaplSource
from inference_energy.acquire.power.sources.redfish import RedfishSource
from inference_energy.acquire.power.sources.smart_plug import SmartPlugSource
from inference_energy.errors import InputError

FALLBACK_FOR = {"nvidia-smi": "nvml", "dcgm": "nvml", "pcm-power": "rapl"}
"""Sources that read the sensors of another source at a higher cost: `auto` takes them where the other does not work."""


def candidates(spec: SamplerSpec) -> list[PowerSource]:
    """Return every source, set up for this run but not opened. A new source is added here."""
    node = simulated_node()
    modelled = ModelledSource(_cpu_time(spec), spec.modelled.tdp_w, spec.modelled.idle_w)
    windows_s = spec.averaging_windows_s
    nvml = NvmlSource(spec.gpus, server_pid=_server_pid(spec), windows_s=windows_s)
    if node is not None:  # tools and devices belong to the real machine, not to the simulated one
        return [labelled(source) for source in (nvml, RaplSource(node / "powercap"), modelled)]
    return [
        nvml,
        NvidiaSmiSource(spec.nvidia_smi, spec.gpus, spec.interval_s, windows_s),
        AmdSmiSource(spec.gpus),
        DcgmSource(spec.dcgm, spec.gpus, windows_s),
        RaplSource(),
        PcmPowerSource(spec.pcm_power),
        RedfishSource(spec.redfish),
        IpmiSource(spec.ipmi),
        SmartPlugSource(spec.smart_plug),
        PduSource(spec.pdu),
        modelled,
    ]


def all_states(sources: Sequence[PowerSource]) -> list[SourceState]:
    """Probe each source, in the order of `sources`."""
    return [source.probe() for source in sources]


def choose(names: Literal["auto"] | Sequence[str], sources: Sequence[PowerSource]) -> list[PowerSource]:
    """Return the sources to use.

    `auto` takes every source that measures, without those that `FALLBACK_FOR` makes needless, and a modelled one only
    if none measures. A list takes exactly the named sources.

    Raises:
        InputError: a named source is unknown or does not work here, or none does; the message gives the reason of each.
    """
    if not names:
        raise InputError('power.sources is empty: write "auto" or a list of names')
    by_name = {source.name: source for source in sources}
    if isinstance(names, str):
        if names != "auto":
            raise InputError(f'power.sources is {names!r}: write "auto" or a list such as [{next(iter(by_name))}]')
        return _best(sources)
    chosen = []
    for name in dict.fromkeys(names):
        if name not in by_name:
            raise InputError(f'power.sources names {name!r}: write "auto" or a list of {", ".join(by_name)}')
        state = by_name[name].probe()
        if not state.available:
            raise InputError(f"power.sources names {name}, which does not work here: {state.reason}")
        chosen.append(by_name[name])
    return chosen


def _best(sources: Sequence[PowerSource]) -> list[PowerSource]:
    states = dict(zip(sources, all_states(sources), strict=True))
    works = {source.name for source, state in states.items() if state.available}
    for source, state in states.items():
        fallbacks = {name for name, other in FALLBACK_FOR.items() if other == source.name}
        if source.required_by_key and not state.available and not fallbacks & works:
            raise InputError(f"{source.required_by_key}: {state.reason}")
    # A fallback for a source that works here would only cost time.
    available = [source for source in states if source.name in works and FALLBACK_FOR.get(source.name, "") not in works]
    measuring = [source for source in available if source.measures]
    if not available:
        reasons = "".join(f"\n  {state.name}: {state.reason}" for state in states.values())
        raise InputError(f"power.sources: no power source works on this machine{reasons}")
    return measuring or available


def _cpu_time(spec: SamplerSpec) -> CpuTime:
    server_pid = _server_pid(spec)
    return MachineCpuTime() if server_pid is None else TreeCpuTime(server_pid)


def _server_pid(spec: SamplerSpec) -> Callable[[], int | None] | None:
    """Return a function that gives the server's pid; None if the spec names no server."""
    if spec.server_status is not None:
        return StatusFilePid(spec.server_status)
    pid = spec.server_pid
    return None if pid is None else lambda: pid
