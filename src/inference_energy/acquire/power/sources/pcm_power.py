"""CPU and memory energy through `pcm-power` of Intel's Performance Counter Monitor (Debian package pcm).

It writes a block a period: `Time elapsed: 1000 ms`, then for each socket

    S0; Consumed energy units: 3412345; Consumed Joules: 208.27; Watts: 208.27; Thermal headroom below TjMax: 45
    S0; Consumed DRAM energy units: 812345; Consumed DRAM Joules: 12.43; DRAM Watts: 12.43

Joules are those of the period, from the same RAPL counters as powercap, so the devices have the same names. Its `-csv`
is not used: it changes no format, and keeps the blocks from being written at once. `-m -1 -p -1` leaves out memory
and frequency states. Source: Intel PCM, pcm-power.cpp and `pcm-power --help`.
"""

import re
from dataclasses import dataclass

from inference_energy.acquire.power.base import PowerSample, PowerSource, SensorChannel, SourceError
from inference_energy.acquire.power.sources.tools import (
    Key,
    LineStream,
    StreamChannel,
    ToolOutput,
    UnreadSamples,
    run_tool,
)
from inference_energy.config.power import PcmPowerSettings

PROBE_S = 0.5
START_TIMEOUT_S = 20.0

_INSTALL = "install the package pcm (Intel Performance Counter Monitor), or write power.pcm_power.command"
_HINTS = (
    ("vPMU is not enabled", "this is a virtual machine without performance counters: measure on the host"),
    (
        "MSR",
        "pcm-power cannot read the CPU's registers: modprobe msr, and run it as root, such as with "
        'power.pcm_power.command: ["sudo", "-n", "pcm-power"]',
    ),
    (
        "must be root",
        'pcm-power must run as root, such as with power.pcm_power.command: ["sudo", "-n", "pcm-power"]',
    ),
    ("occupied by other application", "another profiler holds the CPU's counters: end it (perf, VTune, another pcm)"),
    ("Unsupported processor model", "pcm-power knows Intel server processors only: use rapl"),
)
_QUIET = ["-m", "-1", "-p", "-1"]
_BLOCK = re.compile(r"Time elapsed: (\d+) ms")
_ENERGY = re.compile(
    r"S(?P<socket>\d{1,4}); Consumed (?P<dram>DRAM )?energy units: \d{1,20}; "
    r"Consumed (?:DRAM )?Joules: (?P<joules>\d{1,12}(?:\.\d{0,9})?); "
    r"(?:DRAM )?Watts: (?P<watts>\d{1,12}(?:\.\d{0,9})?)(?:;|$)"
)


@dataclass(frozen=True, slots=True)
class _Line:
    """Energy and mean power of one socket's CPU or memory over one block."""

    key: Key
    energy_j: float
    power_w: float


class PcmPowerSource(PowerSource):
    """The CPU packages and memories that pcm-power shows."""

    name = "pcm-power"
    grade = "counter"  # the energy is from the processor's counters

    def __init__(self, settings: PcmPowerSettings) -> None:
        self._command = settings.command
        self._period_s = settings.period_s
        self._stream: LineStream | None = None

    def find_devices(self) -> tuple[str, list[str]]:
        """Let pcm-power write one block, and name its counters."""
        alive, dead = self._alive()
        reason = f"{len(alive)} energy counter(s)"
        if dead:
            reason += f"; left out because they read zero: {', '.join(map(_named, dead))}"
        return reason, [_named(key) for key in alive]

    def channels(self) -> list[SensorChannel]:
        """Start pcm-power and make a channel for each counter, once all have given a line."""
        self.close()
        alive, _ = self._alive()
        blocks = _Blocks()
        command = [*self._command, f"{self._period_s:g}", *_QUIET]
        stream = LineStream(self.name, command, blocks.take, install=_INSTALL, began=blocks.restart)
        stream.start()
        self._stream = stream
        timeout_s = START_TIMEOUT_S + self._period_s
        if silent := blocks.unread.wait_for(alive, timeout_s, lambda: stream.down is not None):
            why = _explained(stream)
            self.close()
            raise SourceError(f"no reading of {', '.join(sorted(map(_named, silent)))}: {why}")
        return [
            StreamChannel(
                self.name,
                key,
                self.grade,
                blocks.unread,
                stream,
                line_period_s=self._period_s,
                period_s=self._period_s,
                why_silent=lambda: _explained(stream),
            )
            for key in alive
        ]

    def close(self) -> None:
        """End pcm-power."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _alive(self) -> tuple[list[Key], list[Key]]:
        """Return the counters that count, and the counters that read zero."""
        answer = self._probe()
        lines = [line for line in map(_parse, answer.output.splitlines()) if line is not None]
        if not lines:
            output = f"{answer.errors} {answer.output}"
            raise SourceError(_hint(output) or f"pcm-power gives no energy, it says: {answer.words}")
        alive = list(dict.fromkeys(line.key for line in lines if line.energy_j > 0))
        if not alive:
            raise SourceError(
                "pcm-power reads zero throughout, as where a host hides the counters: measure on the host"
            )
        return alive, [line.key for line in lines if line.key not in alive]

    def _probe(self) -> ToolOutput:
        command = [*self._command, f"{PROBE_S:g}", *_QUIET, "-i=1"]
        return run_tool(command, timeout_s=START_TIMEOUT_S, install=_INSTALL)


class _Blocks:
    """Reads the blocks and adds up each counter's energy.

    The sum starts again from zero after a lost block or line: the energy in between is unknown, and a sum that
    decreases is recognized as broken, while a sum that is only too small is not.
    """

    def __init__(self) -> None:
        self.unread = UnreadSamples()
        self._block = 0
        self._sums: dict[Key, tuple[int, float]] = {}

    def restart(self) -> None:
        """Note a start of the tool: the energy since its last block is lost."""
        self._block += 1

    def take(self, line: str, arrived_ns: int) -> bool:
        """Use a line of the format above; return whether it is one."""
        if _BLOCK.match(line):
            self._block += 1
            return True
        parsed = _parse(line)
        if parsed is None:
            return False
        if parsed.key not in self._sums:
            energy_j = parsed.energy_j
        else:
            block, sum_j = self._sums[parsed.key]
            energy_j = sum_j + parsed.energy_j if block == self._block - 1 else 0.0
        self._sums[parsed.key] = (self._block, energy_j)
        reading = PowerSample(arrived_ns, 0.0, power_average_w=parsed.power_w, energy_counter_j=energy_j)
        self.unread.put(parsed.key, reading)
        return True


def _parse(line: str) -> _Line | None:
    match = _ENERGY.match(line)
    if match is None:
        return None
    domain = "dram" if match["dram"] else "cpu_package"
    # Named as powercap names them, so that a package that both sources see counts once.
    return _Line((f"package-{match['socket']}", domain), float(match["joules"]), float(match["watts"]))


def _named(key: Key) -> str:
    device, domain = key
    return f"{device} ({domain})"


def _hint(text: str) -> str | None:
    return next((hint for sign, hint in _HINTS if sign in text), None)


def _explained(stream: LineStream) -> str:
    why = stream.why_silent()
    return _hint(why) or why
