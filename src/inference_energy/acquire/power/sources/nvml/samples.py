"""The driver's own ring of power samples: readings every 20 ms that no late poll can lose.

Seen on an H100 with driver 580: 119 samples 20 ms apart, stamped by the driver in us of the wall clock, the newest
visible within 2 ms of its stamp. Source: NVML API reference, nvmlDeviceGetSamples with NVML_TOTAL_POWER_SAMPLES.
"""

import time
from typing import Any

from inference_energy.acquire.power.base import Channel, Reading, SourceError
from inference_energy.acquire.power.sources.nvml.errors import mapped
from inference_energy.contracts.power import GPU_SAMPLES
from inference_energy.contracts.tables import clock_anchor

SAMPLES_PERIOD_S = 0.6
"""The ring holds over two seconds, so that a read may be a second late before a sample is lost. More often than that,
because what is still in the ring is lost with a sampler that is killed."""

OLDEST_S, NEWEST_S = 2.5, -0.1
"""How long ago, in s, the newest sample may be from; outside of that the driver's clock is not this machine's."""

SAME_NS = 2_000_000
"""Two samples this near are one, asked for again and placed with a slightly different distance of the clocks."""

SILENT_LIMIT_S = 5.0


class SamplesChannel(Channel):
    """The samples of one GPU since the read before.

    They describe the same power as the domain `gpu` does, so they have a domain of their own that is never added up.
    Each has the driver's timestamp, brought to the monotonic clock with the clocks' distance at the time of the read.
    """

    def __init__(self, nvml: Any, handle: Any, device: str) -> None:
        super().__init__("nvml", device, GPU_SAMPLES, "sampled", period_s=SAMPLES_PERIOD_S)
        self.optional = True
        self._nvml = nvml
        self._handle = handle
        self._after_us = 0
        self._newest_ns = time.monotonic_ns()  # what the ring holds from before is not ours

    def read(self) -> Reading:
        """The newest sample.

        Raises:
            SourceError: there is no new one.
        """
        if found := self.read_many():
            return found[-1]
        raise SourceError(f"samples of {self.device}: none since the read before")

    def read_many(self) -> list[Reading]:
        """All samples since the read before, without those from before the channel was opened."""
        nvml = self._nvml
        before_ns = time.monotonic_ns()
        with mapped(nvml, f"samples of {self.device}"):
            try:
                _, samples = nvml.nvmlDeviceGetSamples(self._handle, nvml.NVML_TOTAL_POWER_SAMPLES, self._after_us)
            except nvml.NVMLError as error:
                if error.value != nvml.NVML_ERROR_NOT_FOUND:
                    raise
                samples = []
        after_ns = time.monotonic_ns()
        self._after_us = 0  # where anything below fails, the next read asks for all; none is given twice all the same
        found = sorted((int(sample.timeStamp), int(sample.sampleValue.uiVal)) for sample in samples)
        found = [(time_us, milliwatts) for time_us, milliwatts in found if time_us]
        if not found:
            self._check_silence(after_ns)
            return []
        anchor = clock_anchor()
        apart_ns = anchor["unix_ns"] - anchor["monotonic_ns"]
        age_s = (after_ns + apart_ns) / 1e9 - found[-1][0] / 1e6
        if not NEWEST_S <= age_s <= OLDEST_S:
            raise SourceError(
                f"samples of {self.device}: the newest is {age_s:.1f} s old by the wall clock, so the driver's clock "
                "is not this machine's and they cannot be placed in time"
            )
        self._after_us = found[-1][0]
        latency_us = (after_ns - before_ns) / 1e3
        readings = [
            Reading(time_us * 1000 - apart_ns, latency_us, time_us, power_instant_w=milliwatts / 1e3)
            for time_us, milliwatts in found
            if time_us * 1000 - apart_ns > self._newest_ns + SAME_NS
        ]
        if readings:
            self._newest_ns = readings[-1].timestamp_ns
        return readings

    def _check_silence(self, now_ns: int) -> None:
        silent_s = (now_ns - self._newest_ns) / 1e9
        if silent_s > SILENT_LIMIT_S:
            raise SourceError(f"samples of {self.device}: the driver has added none for {silent_s:.0f} s")
