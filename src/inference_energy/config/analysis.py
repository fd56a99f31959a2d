"""How windows are cut, checked, integrated and attributed. Changing these repeats no measurement."""

from typing import Literal

from pydantic import Field

from inference_energy.config.section import Section


class Steadiness(Section):
    """When a steady window counts as steady.

    Each limit is the change that a straight line through the series shows over the window, as a share of the
    series' mean, and counts only when the trend is significant (Mann-Kendall test on independent block means).
    """

    max_power_trend: float = Field(0.10, gt=0, description="largest trend of power over the window [share of mean]")
    max_throughput_trend: float = Field(
        0.25, gt=0, description="largest trend of generated tokens/s over the window [share of mean]"
    )
    max_running_trend: float = Field(
        0.50,
        gt=0,
        description="largest trend of requests running, in flight, and of the KV cache they use [share of mean]",
    )
    significance: float = Field(0.05, gt=0, lt=1, description="p value below which a trend counts")


class Uncertainty(Section):
    """What is not known of the sensors, as standard uncertainties; software cannot see it.

    The gain's default is that of a rectangular distribution of half-width 5 %, as far as cards were found to be off
    (Yang, Adamek, Armour, SC24, arXiv 2312.02741). Devices with an entry in `analysis.calibration` have its uncertainty
    instead, and that of the meter behind it, by default a rectangular distribution of half-width 1 %.
    """

    gain: float = Field(0.029, ge=0, lt=1, description="of each uncalibrated device's gain [share]")
    offset_w: float = Field(1.0, ge=0, description="of each uncalibrated device's offset [W]")
    meter_gain: float = Field(
        0.0058, ge=0, lt=1, description="of the gain of the meter behind a calibration, from its data sheet [share]"
    )


class Limits(Section):
    """What a request must keep to count as good. TTFT and end to end count from the schedule where there is one."""

    ttft_s: float | None = Field(None, gt=0, description="largest time to first token [s]; null: no limit")
    tpot_s: float | None = Field(None, gt=0, description="largest time per output token after the first [s]")
    itl_s: float | None = Field(
        None, gt=0, description="longest time between two tokens [s]; needs the workload's `chunk_times`"
    )
    e2e_s: float | None = Field(None, gt=0, description="largest time from end to end [s]")


class AnalysisConfig(Section):
    """Windows, integration and attribution."""

    trim_start_s: float = Field(5.0, ge=0, description="cut from the start of every window, while the batch fills [s]")
    trim_end_s: float = Field(0.0, ge=0, description="cut from the end of every window [s]")
    power_reading: Literal["average", "instant"] = Field(
        "average",
        description="which NVML reading is integrated: average (1 s boxcar on Hopper) or instant (25 ms of every 100)",
    )
    calibration: str | None = Field(
        None,
        min_length=1,
        description="calibration.json that `inference-energy calibrate` made, whose gains and offsets are applied; "
        "null: energies are as the sensors give them",
    )
    attribution: Literal["completion_tokens", "total_tokens"] = Field(
        "completion_tokens",
        description="what a request is charged by: its share of the window's completion tokens, or of all its tokens",
    )
    counter_tolerance: float = Field(
        0.05,
        gt=0,
        description="largest difference of integral and hardware counter before the energy is invalid",
    )
    token_tolerance: float = Field(
        0.02,
        ge=0,
        description="largest difference of client and server token counts before the run is invalid",
    )
    max_client_lag_s: float = Field(
        0.1, gt=0, description="largest 99th percentile of sent minus scheduled before a run is invalid [s]"
    )
    max_gap_periods: float = Field(
        10,
        gt=1,
        description="longest hole in the power log, in sampling periods, before the energy is invalid",
    )
    max_failed_share: float = Field(
        0.05, ge=0, le=1, description="largest share of failed requests before per-token figures are invalid"
    )
    limits: Limits | None = Field(
        None, description="limits of latency for goodput and energy per good request; null: none are given"
    )
    uncertainty: Uncertainty = Field(default_factory=Uncertainty, description="what is not known of the sensors")
    steadiness: Steadiness = Field(default_factory=Steadiness, description="when a window counts as steady")
