"""The pictures of docs/estimates.md: the energy roofline over published rows, and every estimator's ratio to them."""

import numpy as np

from inference_energy.estimate.calibration.record import shipped_calibration
from inference_energy.estimate.cases import Cases
from inference_energy.estimate.scorecard.published import Group, Scorecard
from inference_energy.present.log_chart import Series, chart
from inference_energy.present.theme import LIGHT, SERIES

BATCHES = (8, 16, 32, 64, 128, 256, 512)
FINE = np.geomspace(8, 512, 25)
CONTEXT = 500.0
RATIO_LABELS = {
    "flops": "flops",
    "roofline": "roofline",
    "ecologits": "ecologits",
    "scale": "scale (middle)",
    "lookup": "lookup",
    "energy-roofline": "energy-roofline",
}


def estimate_plots(found: Scorecard) -> dict[str, str]:
    """SVG text by file name."""
    return {
        "estimates-roofline.svg": roofline_plot(found.groups[0]),
        "estimates-ratios.svg": ratio_plot(found.groups[0]),
    }


def roofline_plot(group: Group) -> str:
    """Measured rows as points, the shipped calibration with its 95 % prediction interval as lines."""
    fitted = shipped_calibration("h100-published")
    series = []
    for place, name in enumerate(dict.fromkeys(row.shape.name for row in group.rows)):
        rows = [row for row in group.rows if row.shape.name == name]
        cases = Cases.of([rows[0].shape], [rows[0].gpu], batch=FINE, context=CONTEXT)
        line = fitted.output_tokens(cases)
        colour = SERIES[place % len(SERIES)]
        band = (line.low.tolist(), line.high.tolist())
        series.append(Series("", FINE.tolist(), line.energy_j.tolist(), colour, "solid", band))
        label = f"{name} x{rows[0].tensor_parallel:g}"
        series.append(Series(label, [row.batch for row in rows], [row.output_j for row in rows], colour))
    title = "Energy roofline (lines, modelled, 95 %) and published H100 rows (points)"
    return chart(title, "mean running batch", "J per output token, GPUs", series, x_ticks=BATCHES)


def ratio_plot(group: Group) -> str:
    """Median over the models of estimate / measured, by batch."""
    batches = np.array([row.batch for row in group.rows])
    measured = np.array([row.output_j for row in group.rows])
    series = []
    for place, (name, label) in enumerate(RATIO_LABELS.items()):
        ratios = group.estimates[name] / measured
        known = [batch for batch in BATCHES if np.any(~np.isnan(ratios[batches == batch]))]
        medians = [float(np.nanmedian(ratios[batches == batch])) for batch in known]
        line = ("solid", "dash", "dot")[place % 3] if name != "energy-roofline" else "solid"
        colour = LIGHT["ink"] if name == "energy-roofline" else SERIES[place]
        series.append(Series(label, known, medians, colour, line))
    title = "Estimate over measured, median of the models, published H100 rows"
    return chart(title, "mean running batch", "estimate / measured", series, x_ticks=BATCHES, level=1.0)
