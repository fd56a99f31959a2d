"""The path from measurements to figures: windows, energy, attribution, estimates, metrics, carbon and water.

Changing any of these repeats no measurement. Each stage reads one model of its own, which has no more than the stage
uses; `AnalysisConfig`, the section `analysis`, is made of those of the analysis.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from inference_energy.config.base import MOST_SECONDS, Section


class Steadiness(Section):
    """Limits within which a window counts as steady.

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
    """Standard uncertainties of the sensors, which software cannot see.

    The default of the gain is that of a rectangular distribution of half-width 5 %, as far as cards were found to be
    off (Yang, Adamek, Armour, SC24, arXiv 2312.02741). Devices with an entry in `analysis.calibration` have the
    uncertainty of the calibration instead, and that of its meter, by default a rectangular distribution of half-width 1
    %.
    """

    gain: float = Field(0.029, ge=0, lt=1, description="of each uncalibrated device's gain [share]")
    offset_w: float = Field(1.0, ge=0, description="of each uncalibrated device's offset [W]")
    meter_gain: float = Field(
        0.0058, ge=0, lt=1, description="of the gain of the meter behind a calibration, from its data sheet [share]"
    )


class Slo(Section):
    """Service-level objectives: a request that meets them all counts as good.

    TTFT and end to end count from the schedule where there is one.
    """

    ttft_s: float | None = Field(None, gt=0, description="largest time to first token [s]; null: no limit")
    tpot_s: float | None = Field(None, gt=0, description="largest time per output token after the first [s]")
    itl_s: float | None = Field(
        None, gt=0, description="longest time between two tokens [s]; needs the workload's `chunk_times`"
    )
    e2e_s: float | None = Field(None, gt=0, description="largest time from end to end [s]")


class WindowTrim(Section):
    """Trims of every window."""

    trim_start_s: float = Field(
        5.0, ge=0, le=MOST_SECONDS, description="cut from the start of every window, while the batch fills [s]"
    )
    trim_end_s: float = Field(0.0, ge=0, le=MOST_SECONDS, description="cut from the end of every window [s]")


class PowerReading(Section):
    """The power reading that is taken from the log."""

    power_reading: Literal["average", "instant"] = Field(
        "average",
        description="which NVML reading is integrated: average (1 s boxcar on Hopper) or instant (25 ms of every 100)",
    )


class GapLimit(Section):
    """The longest gap allowed in the power log."""

    max_gap_periods: float = Field(
        10,
        gt=1,
        description="longest gap in the power log, in sampling periods, before the energy is invalid",
    )


class SensorUncertainty(Section):
    """Stated properties of the sensors."""

    uncertainty: Uncertainty = Field(default_factory=Uncertainty, description="what is not known of the sensors")


class SteadyLoadConfig(GapLimit, PowerReading, WindowTrim):
    """Read by the stage `steady_load`: how windows are cut, and when their load can be trusted."""

    token_tolerance: float = Field(
        0.02,
        ge=0,
        description="largest difference of client and server token counts before the run is invalid",
    )
    max_client_lag_s: float = Field(
        0.1, gt=0, description="largest 99th percentile of sent minus scheduled before a run is invalid [s]"
    )
    max_failed_share: float = Field(
        0.05, ge=0, le=1, description="largest share of failed requests before per-token figures are invalid"
    )
    slo: Slo | None = Field(
        None, description="service-level objectives, for goodput and energy per good request; null: none are given"
    )
    steadiness: Steadiness = Field(default_factory=Steadiness, description="when a window counts as steady")


class EnergyConfig(SensorUncertainty, GapLimit, PowerReading):
    """Read by the stage `integrate`: how power becomes energy. The calibration's file is an input of its own."""

    counter_tolerance: float = Field(
        0.05,
        gt=0,
        description="largest difference of integral and hardware counter before the energy is invalid",
    )


class AttributionConfig(Section):
    """Read by the stage `attribute`: the tokens by which requests are charged."""

    attribution: Literal["completion_tokens", "total_tokens"] = Field(
        "completion_tokens",
        description="what a request is charged by: its share of the window's completion tokens, or of all its tokens",
    )


class FitConfig(SensorUncertainty):
    """Read by the stage `fit`."""


class AnalysisConfig(AttributionConfig, EnergyConfig, SteadyLoadConfig):
    """Windows, integration and attribution: all that the stages of the analysis read, each its own base class."""

    calibration: str | None = Field(
        None,
        min_length=1,
        description="calibration.json that `inference-energy calibrate` made, whose gains and offsets are applied; "
        "null: energies are as the sensors give them",
    )

    @model_validator(mode="before")
    @classmethod
    def _old_keys(cls, content: Any) -> Any:
        return rename_old_keys(content) if isinstance(content, Mapping) else content


def rename_old_keys(analysis: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `analysis` with `slo` in place of `limits`, its former name.

    Where both are there, `limits` is laid over `slo`: shipped files have the new key, so the old one is the user's.
    """
    content = dict(analysis)
    if "limits" in content:
        old, new = content.pop("limits"), content.get("slo")
        content["slo"] = {**new, **old} if isinstance(old, Mapping) and isinstance(new, Mapping) else old
    return content


class EstimateConfig(Section):
    """Inputs of the estimators."""

    calibration: str | None = Field(
        None,
        min_length=1,
        description="calibration of the energy roofline: a .json that `inference-energy estimate fit` wrote, or "
        "h100-published or h100-windows; null: the one that is shipped for the GPU, if any",
    )
    gpu: str | None = Field(
        None,
        min_length=1,
        description="row of the table of data sheets (`inference-energy estimate gpus`); null: by the driver's name",
    )


class EmbodiedConfig(Section):
    """Embodied emissions of the hardware, for SCI: M = TE * (TiR / EL) * (RR / ToR), with TiR the window's length."""

    total_kg: float = Field(gt=0, description="embodied emissions of the whole hardware, TE [kgCO2e]")
    lifetime_years: float = Field(gt=0, le=100, description="expected lifetime, EL [years of 365 days]")
    share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the hardware that the server reserves, RR / ToR, such as 0.125 for 1 of 8 GPUs",
    )
    source: str = Field(min_length=3, description="where total and lifetime come from, with their year")


class TrafficConfig(Section):
    """A day of traffic, for daily energy, carbon and water."""

    profile: str = Field(
        min_length=1, description="CSV with a row for each hour: `hour` (0 to 23), and `requests` or `output_tokens`"
    )
    replicas: int = Field(1, ge=1, description="servers that share the traffic evenly and are always on")


class QualityConfig(Section):
    """Grading of the answers, and the accuracy that is good enough."""

    grader: Literal["auto", "exact", "multiple_choice", "numeric"] = Field(
        "auto",
        description="how answers are graded. auto: by the form of the right one: a letter from A to H, a number, text",
    )
    floor: float | None = Field(
        None, gt=0, le=1, description="least accuracy for goodput at a quality floor [share]; null: none is given"
    )


class MetricFamily(Section):
    """Inputs of the metric family besides measurements and a day of traffic."""

    embodied: EmbodiedConfig | None = Field(None, description="embodied emissions; null leaves SCI out")
    quality: QualityConfig = Field(default_factory=QualityConfig, description="how answers are graded")
    pareto: list[tuple[str, str]] = Field(
        [
            ("energy_total_per_output_token_j", "tpot_p50_s"),
            ("energy_total_per_output_token_j", "output_tokens_per_s"),
        ],
        description="pairs of figures whose Pareto fronts are given",
    )


class MetricsConfig(MetricFamily):
    """The metric family (docs/reference/metrics.md)."""

    traffic: TrafficConfig | None = Field(None, description="a day of traffic; null leaves daily use out")


class CarbonConfig(Section):
    """The grid's carbon intensity, as one number with its source."""

    zone: str = Field(description="name of the grid zone, for the record")
    intensity_g_per_kwh: float = Field(ge=0, le=5000, description="carbon intensity [gCO2e/kWh]")
    basis: Literal["lifecycle", "direct", "marginal"] = Field(
        description="what the intensity counts; figures of different basis are never mixed"
    )
    source: str = Field(min_length=3, description="where the intensity comes from, with its year")


class WaterConfig(Section):
    """Water factors: consumption, on site and at the power station."""

    wue_site_l_per_kwh: float | None = Field(None, ge=0, description="site WUE, per kWh of IT energy [L/kWh]")
    ewif_grid_l_per_kwh: float | None = Field(
        None, ge=0, description="energy water intensity factor of the grid [L/kWh]"
    )
    source: str | None = Field(None, description="where the factors come from, with their year")

    @model_validator(mode="after")
    def _factors_have_a_source(self) -> "WaterConfig":
        has_factor = self.wue_site_l_per_kwh is not None or self.ewif_grid_l_per_kwh is not None
        if has_factor and not self.source:
            raise ValueError("a water factor is given without impact.water.source: say where it comes from")
        return self


class ImpactConfig(Section):
    """Carbon and water."""

    carbon: CarbonConfig = Field(description="carbon intensity of the grid")
    pue: float = Field(
        1.0, ge=1.0, le=10, description="power usage effectiveness of the site; 1.0 counts IT energy alone"
    )
    pue_source: str = Field(
        "none: IT energy alone", min_length=3, description="where the PUE comes from, with its year"
    )
    water: WaterConfig = Field(default_factory=WaterConfig, description="water factors; null leaves water out")
