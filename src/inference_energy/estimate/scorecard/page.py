"""docs/validation/estimators.md, written from the scorecard."""

import math
from dataclasses import replace
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from inference_energy.estimate.calibration.fit import fit_rows
from inference_energy.estimate.calibration.record import SHIPPED, Calibration, shipped_calibration
from inference_energy.estimate.calibration.shipped import dense_16_bit
from inference_energy.estimate.measured.rows import MeasuredRow
from inference_energy.estimate.scorecard.published import Group, Scorecard
from inference_energy.estimate.scorecard.scores import Score

TEMPLATE = "estimators.md.j2"
EARLIER = {"byte": 182e-12, "flop": 2.27e-12, "token": 13e-3}
"""The energy roofline that was fitted to 64 rows of five models before this package was."""

CONTEXTS = (250.0, 500.0, 1000.0)
PREFIXES = {
    "byte": (1e12, "pJ/byte"),
    "flop": (1e12, "pJ/FLOP"),
    "token": (1e3, "mJ/token"),
    "prefill": (1e12, "pJ/FLOP"),
}


def page(found: Scorecard, command: str) -> str:
    """The page.

    Args:
        found: the scorecard.
        command: what was typed to make it.
    """
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    template = environment.from_string(files("inference_energy.estimate.scorecard").joinpath(TEMPLATE).read_text())
    published = shipped_calibration(SHIPPED[0])
    return (
        template.render(
            command=command,
            groups=[{"title": group.title, "scores": _scores(group), "rows": _rows(group)} for group in found.groups],
            shown=[_shown(found, place, row) for place, row in enumerate(found.shown)],
            calibrations=[_calibration(shipped_calibration(name)) for name in SHIPPED],
            in_sample=100 * published.record["in_sample_mape"],
            left_out=100 * published.record["leave_one_model_out_mape"],
            models=len(published.models),
            rows=published.record["rows"],
            windows={line.label: 100 * line.mape for line in found.groups[-1].scores},
            window_ratio=_median_ratio(found.groups[-1], "energy-roofline"),
            earlier=[abs(100 * (_coefficient(published, term) / value - 1)) for term, value in EARLIER.items()],
            byte_ratio=100
            * (_coefficient(shipped_calibration(SHIPPED[1]), "byte") / _coefficient(published, "byte") - 1),
            by_context={context: 100 * in_sample_at(context) for context in CONTEXTS},
        ).rstrip()
        + "\n"
    )


def in_sample_at(context_tokens: float) -> float:
    """Mean error in sample of the published calibration if the mean context of its rows were this."""
    rows = [replace(row, context_tokens=context_tokens) for row in dense_16_bit()]
    return float(fit_rows(rows, "context", {})["in_sample_mape"])


def _coefficient(fitted: Calibration, term: str) -> float:
    return float(dict(zip(fitted.terms, fitted.values, strict=True))[term])


def _median_ratio(group: Group, name: str) -> float:
    measured = np.array([row.output_j for row in group.rows])
    return float(np.nanmedian(group.estimates[name] / measured))


def _scores(group: Group) -> list[str]:
    return [_score(line) for line in group.scores]


def _score(line: Score) -> str:
    if not line.rows:
        return f"| {line.label} | 0 | | | | | not scored: {line.why} |"
    covered = "" if line.covered is None else f"{100 * line.covered:.0f} %"
    return (
        f"| {line.label} | {line.rows} | {100 * line.mape:.1f} % | {line.log_error:.2f} | "
        f"{100 * line.within_two:.0f} % | {line.median_ratio:.2f} | {covered} |"
    )


def _rows(group: Group) -> dict[str, Any]:
    """A table with a row a measurement, and estimate / measured of each estimator that has any."""
    names = [name for name, values in group.estimates.items() if not np.isnan(values).all()]
    lines = []
    for place, row in enumerate(group.rows):
        ratios = [group.estimates[name][place] / row.output_j for name in names]
        cells = " | ".join("" if math.isnan(ratio) else f"{ratio:.2f}" for ratio in ratios)
        lines.append(f"| {row.label} | {row.output_j:.3g} | {cells} |")
    return {"names": names, "lines": lines}


def _shown(found: Scorecard, place: int, row: MeasuredRow) -> str:
    estimates = "; ".join(
        f"{name} {values[place]:.3g}" for name, values in found.shown_estimates.items() if not math.isnan(values[place])
    )
    return f"| {row.label} | {row.output_j:.3g} | {row.use} | {estimates} | {row.note} |"


def _calibration(fitted: Calibration) -> dict[str, Any]:
    record = fitted.record
    return {
        "name": fitted.name,
        "models": ", ".join(fitted.models),
        "rows": record["rows"],
        "prompts": fitted.prompts,
        "sources": "; ".join(record["provenance"]["sources"]),
        "command": record["provenance"]["command"],
        "coefficients": [
            f"e_{entry['term']} = {PREFIXES[entry['term']][0] * entry['value']:.3g} ± "
            f"{PREFIXES[entry['term']][0] * entry['standard_error']:.2g} {PREFIXES[entry['term']][1]}"
            for entry in record["coefficients"]
        ],
        "in_sample": 100 * record["in_sample_mape"],
        "left_out": None if record["leave_one_model_out_mape"] is None else 100 * record["leave_one_model_out_mape"],
        "notes": record["notes"],
    }
