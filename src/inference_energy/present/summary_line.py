"""The five lines that a run ends with: what ran, energy, carbon, what to trust, and where the report is."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference_energy.present.formats import NOT_GIVEN, UNTRUSTED_GRADES, Place, place, scale_for
from inference_energy.present.inputs import all_figures, labels, steady_cells
from inference_energy.present.sections import model_name

MAX_SHOWN = 3
"""More cells than this are given as the lowest and the highest."""

ENERGY = "energy_active_per_output_token_j"
CARBON = "carbon_per_1k_output_tokens_g"


def five_lines(summary: dict[str, Any], report: Path) -> str:
    """The end-of-run summary: exactly five lines, without a line break at the end.

    Args:
        summary: content of summary.json.
        report: where the report lies; shown from the working directory.
    """
    cells = steady_cells(summary)
    models = ", ".join(dict.fromkeys(name for cell in summary["cells"] if (name := model_name(cell)))) or "no model"
    machines = ", ".join(dict.fromkeys(str(name) for name in summary.get("machines") or [])) or "no machine"
    return "\n".join(
        [
            f"{'served':<9}{models} on {machines}: {len(summary['cells'])} cells, {len(cells)} of them steady",
            f"{'energy':<9}{_figures(cells, ENERGY, 'output token')}",
            f"{'carbon':<9}{_figures(cells, CARBON, '1k output tokens')}",
            f"{'trust':<9}{_trust(summary, cells)}",
            f"{'report':<9}{os.path.relpath(report)}",
        ]
    )


def _figures(cells: Sequence[dict[str, Any]], name: str, per: str) -> str:
    """The figure of each cell, or the lowest and the highest, with what was subtracted, boundary and grade."""
    named = zip(labels(cells), cells, strict=True)
    found = [(label, cell["figures"][name]) for label, cell in named if name in cell["figures"]]
    if not found:
        return f"{NOT_GIVEN}: no steady cell"
    scale = scale_for([figure["value"] for _, figure in found], found[0][1]["unit"])
    given = [(load, figure) for load, figure in found if figure["valid"]]
    if not given:
        return f"{NOT_GIVEN}: {place(found[0][1]).why}"
    if len(given) > MAX_SHOWN:
        given = [min(given, key=_value), max(given, key=_value)]
    places = [(load, place(figure, scale, per=per)) for load, figure in given]
    same = {shown.qualifiers for _, shown in places}
    texts = [f"{shown.text} at {load}" + ("" if len(same) == 1 else f" ({_known(shown)})") for load, shown in places]
    joined = (" to " if len(found) > MAX_SHOWN and len(places) == 2 else "; ").join(texts)
    return joined + (f" ({_known(places[0][1])})" if len(same) == 1 else "")


def _value(row: tuple[str, dict[str, Any]]) -> float:
    return float(row[1]["value"])


def _known(shown: Place) -> str:
    return ", ".join(shown.qualifiers)


def _trust(summary: dict[str, Any], cells: Sequence[dict[str, Any]]) -> str:
    """How many cells have an energy, the first reason where one has not, and a warning about modelled power."""
    missing = [
        (c["cell"], c["figures"][ENERGY]) for c in cells if ENERGY in c["figures"] and not c["figures"][ENERGY]["valid"]
    ]
    given = sum(ENERGY in cell["figures"] for cell in cells) - len(missing)
    text = f"{given} of {len(cells)} steady cells have an energy per token"
    if missing:
        text += f"; {missing[0][0]}: {place(missing[0][1]).why.rstrip('.')}"
    weak = sorted({str(figure["grade"]) for figure in all_figures(summary)} & set(UNTRUSTED_GRADES))
    return text + "".join(f"; power is {grade}, not measured" for grade in weak)
