"""The rule `report`: results/<experiment>/report.html.

Input: `summary`, `environments` (a list), and for the sessions, in the order of `params.sessions`, the lists `power`,
`phases`, `requests`, `receipts`, `session`, `idle`, `server_environment` and `model`; any of these lists may be absent.
Params: `sessions`, a list of {"session": ..., "machine": ...}, or that as JSON; `title`, optional. Output: `report`.
"""

import json
from pathlib import Path
from typing import Any

from inference_energy.present.report import write_report
from inference_energy.present.report_inputs import SessionFiles
from inference_energy.stages.run_state import logged

KINDS = ("power", "phases", "requests", "receipts", "session", "idle", "server_environment", "model")


def paths(inputs: Any, name: str) -> list[Path]:
    """The files of a named input, none where it is absent."""
    value = inputs.get(name) or []
    return [Path(value)] if isinstance(value, str) else [Path(path) for path in value]


def main(job: Any) -> None:
    """Gather the files by session and write the report."""
    named = job.params.sessions
    by_kind = {kind: paths(job.input, kind) for kind in KINDS}
    sessions = [
        SessionFiles(
            name=row["session"],
            machine=row["machine"],
            **{kind: files[index] for kind, files in by_kind.items() if files},
        )
        for index, row in enumerate(json.loads(named) if isinstance(named, str) else named)
    ]
    write_report(
        Path(job.output.report),
        Path(job.input.summary),
        sessions,
        paths(job.input, "environments"),
        title=job.params.get("title"),
    )


with logged(Path(snakemake.log[0])):  # type: ignore[name-defined]  # noqa: F821
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
