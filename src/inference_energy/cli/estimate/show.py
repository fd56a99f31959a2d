"""What `estimate` prints."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inference_energy.estimate.hardware.gpus import gpus
from inference_energy.estimate.shapes.catalogue import models, shape_of

if TYPE_CHECKING:
    from inference_energy.estimate.scorecard.published import Scorecard
    from inference_energy.estimate.scorecard.scores import Score


def print_side_by_side(found: dict[str, Any]) -> None:
    """All estimates of one configuration: numbers, what is missing, then what each assumes and leaves out."""
    console = Console()

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, highlight=False, markup=False)

    say(_subject(found))
    say("Every figure is modelled: an estimate, not a measurement.", "bold")
    say("")
    there = [row for row in found["estimates"] if not row["unavailable"]]
    table = Table(box=None, pad_edge=False)
    table.add_column("estimator", no_wrap=True)
    for name in ("J/output token", "range", "J/request"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("contains")
    for row in there:
        request = row["energy_per_request_j"]
        table.add_row(
            row["id"],
            _number(row["energy_per_output_token_j"]) or "no point",
            _range(row["low"], row["high"]),
            _number(request["point"]) or _range(request["low"], request["high"]),
            row["boundary"],
        )
    console.print(table)
    missing: dict[str, list[str]] = {}
    for row in found["estimates"]:
        if row["unavailable"]:
            missing.setdefault(row["unavailable"], []).append(row["id"])
    for why, names in missing.items():
        say(f"unavailable: {', '.join(names)}: {why}.")
    for line in _prefill(found["prefill"]):
        say(line)
    say("")
    for row in there:
        console.print(f"[bold]{row['id']}[/bold] assumes: {escape('; '.join(row['assumptions']))}.", highlight=False)
        say(f"  leaves out: {'; '.join(row['leaves_out'])}.")
    for note in found["notes"]:
        say(f"note: {note}.")


def print_calibration(content: dict[str, Any], path: Path) -> None:
    """The coefficients and how well they predict."""
    console = Console()
    for entry in content["coefficients"]:
        console.print(
            f"e_{entry['term']}: {entry['value']:.4g} ± {entry['standard_error']:.2g} {entry['unit']}", highlight=False
        )
    left_out = content["leave_one_model_out_mape"]
    console.print(
        f"{content['rows']} rows, {len(content['models'])} model(s); mean error "
        + f"{100 * content['in_sample_mape']:.1f} % "
        + ("of the rows themselves" if left_out is None else f"in sample, {100 * left_out:.1f} % of models left out"),
        highlight=False,
    )
    for note in content["notes"]:
        console.print(f"note: {note}", highlight=False, markup=False)
    console.print(f"written: {path}", highlight=False, markup=False)


def print_scores(found: "Scorecard") -> None:
    """One line an estimator."""
    console = Console()
    for group in found.groups:
        console.print(f"\n{group.title}", style="bold", highlight=False)
        table = Table(box=None, pad_edge=False)
        table.add_column("estimator")
        for name in ("rows", "MAPE", "exp mean |ln|", "within 2x", "median ratio"):
            table.add_column(name, justify="right", no_wrap=True)
        absent: dict[str, list[str]] = {}
        for line in group.scores:
            if line.rows:
                table.add_row(*_score(line))
            else:
                absent.setdefault(line.why or "", []).append(line.label)
        console.print(table)
        for why, names in absent.items():
            console.print(f"not scored: {', '.join(names)}: {why}.", highlight=False, markup=False)


def print_models() -> None:
    """The shipped models."""
    table = Table(box=None, pad_edge=False)
    for name in ("model", "parameters", "active", "weights GB", "KV kB/token", "from"):
        table.add_column(name, justify="left" if name in ("model", "from") else "right", no_wrap=True)
    for name, entry in models().items():
        shape = shape_of(name)
        table.add_row(
            name,
            f"{shape.parameters / 1e9:.2f} billion",
            f"{shape.active_parameters / 1e9:.2f} billion" if shape.is_moe else "",
            f"{shape.resident_bytes / 1e9:.4g}",
            f"{shape.kv_bytes_per_token / 1e3:.4g}",
            entry["source"],
        )
    Console().print(table)


def print_gpus() -> None:
    """The table of data sheets."""
    table = Table(box=None, pad_edge=False)
    for name in ("GPU", "TDP W", "memory GB", "GB/s", "bf16", "fp8", "int8", "from"):
        table.add_column(name, justify="left" if name in ("GPU", "from") else "right", no_wrap=name != "from")
    for gpu in gpus().values():
        table.add_row(
            gpu.name,
            f"{gpu.tdp_w:g}",
            f"{gpu.memory_bytes / 1e9:g}",
            f"{gpu.bandwidth_bytes_per_s / 1e9:g}",
            *("" if peak is None else f"{peak / 1e12:g}" for peak in (gpu.bf16_flops, gpu.fp8_flops, gpu.int8_flops)),
            gpu.source,
        )
    console = Console()
    console.print(table)
    console.print("bf16, fp8, int8: dense peak, TFLOP/s or TOP/s, without sparsity.", highlight=False)


def _subject(found: dict[str, Any]) -> str:
    model, load = found["model"], found["load"]
    active = f", {model['active_parameters'] / 1e9:.3g} billion active" if model["experts"] else ""
    return (
        f"{model['name']}: {model['parameters'] / 1e9:.4g} billion parameters{active}, weights "
        f"{model['weight_bytes'] / 1e9:.3g} GB; {load['tensor_parallel']} x {found['gpu']['name']}"
    )


def _score(line: "Score") -> tuple[str, ...]:
    return (
        line.label,
        str(line.rows),
        f"{100 * line.mape:.1f} %",
        f"{line.log_error:.2f}",
        f"{100 * line.within_two:.0f} %",
        f"{line.median_ratio:.2f}",
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3g} to {high:.3g}"


def _prefill(found: dict[str, Any]) -> list[str]:
    if found["unavailable"]:
        return [f"Reading the prompt: unavailable: {found['unavailable']}"]
    low, high = found["data_sheet_j"]
    lines = [f"Reading the prompt, apart: {low:.3g} to {high:.3g} J/request by data sheet (40 to 60 % of peak)"]
    if found["calibrated_j"] is not None:
        ends = found["calibrated_interval_j"]
        lines.append(
            f"  {found['calibrated_j']:.3g} J/request, {ends[0]:.3g} to {ends[1]:.3g}, by {found['calibration']}"
        )
    return lines
