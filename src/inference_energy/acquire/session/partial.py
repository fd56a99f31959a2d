"""What a session that failed leaves: the logs up to then as the files that a session writes, beside its logs.

They are for people and take no part in the pipeline: the folder of results stays as it was.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from inference_energy.acquire.load.log.merge import merge
from inference_energy.acquire.power import stream
from inference_energy.acquire.server import metrics_log
from inference_energy.contracts import phases as phases_contract
from inference_energy.contracts.tables import write_json, write_table
from inference_energy.errors import RunError

FOLDER = "partial"


def clear_partial(logs: Path) -> None:
    """Remove what an earlier run left."""
    shutil.rmtree(logs / FOLDER, ignore_errors=True)


def keep_partial(
    logs: Path, phases: Sequence[Mapping[str, Any]], under_way: str, anchor: Mapping[str, int], error: RunError
) -> None:
    """Write what is readable of the logs, and add to the error where it is and what it holds.

    Args:
        logs: the session's folder of logs, holds power.arrows, server_metrics.arrows and load/.
        phases: those that were over.
        under_way: the stage in which it failed.
        anchor: the session's clock anchor.
        error: why it failed.
    """
    folder = logs / FOLDER
    facts = {"clock_anchor": dict(anchor), "failure": str(error), "under_way": under_way}
    write_json(folder / "session.json", facts)
    write_table(
        folder / "phases.parquet", [dict(phase) for phase in phases], phases_contract.SCHEMA, clock_anchor=anchor
    )
    files: dict[str, Callable[[Path], object]] = {
        "requests": lambda target: merge(logs / "load", target, clock_anchor=dict(anchor)),
        "power": lambda target: stream.compact(logs / "power.arrows", target),
        "server_metrics": lambda target: metrics_log.compact(
            logs / "server_metrics.arrows", target, clock_anchor=dict(anchor)
        ),
    }
    for name, make in files.items():
        # The error is the one to see; a log that cannot be read stays as it is.
        with suppress(RunError, OSError, pa.ArrowInvalid):
            make(folder / f"{name}.parquet")
    error.add_note(f"What was measured until then is kept in {folder}: {_held(folder)}. It goes into no result.")


def _held(folder: Path) -> str:
    requests, power = folder / "requests.parquet", folder / "power.parquet"
    said = []
    if requests.is_file():
        counts = pc.value_counts(pq.read_table(requests, columns=["status"])["status"]).to_pylist()
        ended = ", ".join(f"{one['counts']} {one['values']}" for one in counts)
        said.append(f"requests ({ended})" if ended else "no request")
    if power.is_file():
        times = pc.min_max(pq.read_table(power, columns=["timestamp_ns"])["timestamp_ns"]).as_py()
        if times["max"] is not None:
            said.append(f"power over {(times['max'] - times['min']) / 1e9:.0f} s")
    return " and ".join(said) or "only logs"
