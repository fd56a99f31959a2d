"""What the metric family needs besides measurements. Changing these repeats no measurement."""

from typing import Literal

from pydantic import Field

from inference_energy.config.section import Section


class EmbodiedConfig(Section):
    """What making the hardware emitted, for SCI: M = TE * (TiR / EL) * (RR / ToR), with TiR the window's length."""

    total_kg: float = Field(gt=0, description="embodied emissions of the whole hardware, TE [kgCO2e]")
    lifetime_years: float = Field(gt=0, description="expected lifetime, EL [years of 365 days]")
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
    """How answers are graded, and which accuracy is good enough."""

    grader: Literal["auto", "exact", "multiple_choice", "numeric"] = Field(
        "auto",
        description="how answers are graded. auto: by the form of the right one: a letter from A to H, a number, text",
    )
    floor: float | None = Field(
        None, gt=0, le=1, description="least accuracy for goodput at a quality floor [share]; null: none is given"
    )


class MetricsConfig(Section):
    """The metric family (docs/metrics.md)."""

    embodied: EmbodiedConfig | None = Field(None, description="embodied emissions; null leaves SCI out")
    traffic: TrafficConfig | None = Field(None, description="a day of traffic; null leaves daily use out")
    quality: QualityConfig = Field(default_factory=QualityConfig, description="how answers are graded")
    pareto: list[tuple[str, str]] = Field(
        [
            ("energy_total_per_output_token_j", "tpot_p50_s"),
            ("energy_total_per_output_token_j", "output_tokens_per_s"),
        ],
        description="pairs of figures whose Pareto fronts are given",
    )
