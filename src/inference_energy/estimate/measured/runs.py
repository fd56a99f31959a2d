"""The measured windows of finished runs as a table of rows, for a calibration of one's own.

A sweep over batches, and over models, is what the fit of the energy roofline needs: runs of the pipeline give it.
"""

from collections.abc import Sequence
from typing import Any

from inference_energy.errors import InputError


def rows_of_summaries(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A table that `measured.rows.read_rows` reads, with the models' config.json inside.

    Args:
        summaries: summary.json of each run.

    Returns:
        `rows`, and `left_out`: the windows that give none, with the reason.

    Raises:
        InputError: a summary has no estimates, or no window gives a row.
    """
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for summary in summaries:
        if "estimates" not in summary:
            raise InputError(
                f"{summary.get('experiment', 'the run')}: its summary.json has no estimates; run `snakemake` again"
            )
        for session in summary["estimates"]:
            found, absent = _session(str(summary["experiment"]), session)
            rows += found
            left_out += absent
    if not rows:
        raise InputError("no window gives a row: " + "; ".join(left_out or ["there are none"]))
    return {"rows": rows, "left_out": left_out}


def _session(experiment: str, session: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    name = f"{experiment} {session['session']}"
    if session["unknown"]:
        return [], [f"{name}: {' '.join(session['unknown'])}"]
    rows, left_out = [], []
    for window, content in {**session["windows"], **session["fit_windows"]}.items():
        load, measured = content["load"], content["measured"]
        each = {key: measured[key] for key in measured if key.startswith("energy_per_") and measured[key] is not None}
        lacks = [key for key in ("batch", "context_tokens") if load[key] is None]
        if not each or lacks:
            why = measured["unavailable"] or f"not known: {', '.join(lacks)}"
            left_out.append(f"{name}.{window}: {why}")
            continue
        batch, throughput = load["batch"], load["throughput_tokens_per_s"]
        rows.append(
            {
                "label": f"{name}.{window}",
                "source": f"run {experiment} on {session['machine']}, grade {measured['grade']}",
                "model": {"name": session["model"]["name"], "config": session["architecture"]},
                "gpu": session["gpu"]["name"],
                "tensor_parallel": session["gpus_per_copy"],
                "batch": batch / session["copies"],
                "input_tokens": load["input_tokens"],
                "output_tokens": load["output_tokens"],
                "context_tokens": load["context_tokens"],
                "throughput_tokens_per_s": None if throughput is None else throughput / session["copies"],
                "ttft_s": load["ttft_s"],
                **each,
            }
        )
    return rows, left_out
