"""The page of all reason codes, made from their one table."""

from inference_energy.analysis.validity import CODES


def reasons_page() -> str:
    """Every code with its meaning, its effect and the figures it stands on, in Markdown."""
    lines = [
        "# Reason codes",
        "",
        "Generated from `src/inference_energy/analysis/validity.py` by `make docs`. A code that invalidates takes the "
        "figure's value away: its place says why. A note stands on a figure that keeps its value.",
        "",
        "| code | meaning | effect | figures |",
        "|---|---|---|---|",
        *(f"| `{name}` | {code.meaning} | {code.effect} | {code.figures} |" for name, code in sorted(CODES.items())),
    ]
    return "\n".join(lines) + "\n"
