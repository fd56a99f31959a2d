"""The rule `power_trace`: a page of its own with one session's power trace, for `snakemake --report`.

Input: `power`, `phases`, and optionally `energy` (energy.json, for the cold idle). Params: `session`, `machine`.
Output: `page`.
"""

from pathlib import Path
from typing import Any

from inference_energy.contracts.documents.document import read_document
from inference_energy.contracts.documents.energy import EnergyDocument
from inference_energy.present.report_inputs import SessionFiles
from inference_energy.present.trace import uncalibrated_idle, write_trace_page
from inference_energy.stages.run_state import logged


def main(job: Any) -> None:
    """Write the page."""
    energy = job.input.get("energy")
    content = read_document(Path(energy), EnergyDocument) if energy else None
    cold = uncalibrated_idle(content.idle.cold_power_w, content.calibration) if content else None
    files = SessionFiles(
        name=job.params.session,
        machine=job.params.machine,
        power=Path(job.input.power),
        phases=Path(job.input.phases),
    )
    write_trace_page(Path(job.output.page), files, cold_idle=cold)


with logged(Path(snakemake.log[0])):  # type: ignore[name-defined]  # noqa: F821
    main(snakemake)  # type: ignore[name-defined]  # noqa: F821
