"""Whether report.html shows what its files say: the page is written again from them, and compared."""

import base64
import math
import re
import struct
from pathlib import Path

from plotly.offline import get_plotlyjs

from inference_energy.contracts.outside import read_bytes
from inference_energy.plan.stage_configs import ExperimentSettings, SessionNames
from inference_energy.present.report import write_report
from inference_energy.present.report_inputs import SessionFiles
from inference_energy.provenance.comparison import RELATIVE_TOLERANCE
from inference_energy.stages import registry
from inference_energy.stages.registry import File

MAX_PAGE = 1 << 30
_SHOWN = 60
_NUMBER = re.compile(r"([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")
_ARRAY = re.compile(r'"dtype": "f8", "bdata": "([A-Za-z0-9+/=]*)"')


def report_difference(page: Path, results: Path, settings: ExperimentSettings) -> str | None:
    """Return where a report first differs from the page that its files give, beyond rounding; None if nowhere.

    Args:
        page: report.html.
        results: the results folder, with the raw and derived files.
        settings: the experiment.

    Raises:
        InputError: a file cannot be used.
    """
    again = page.with_name(".again.html")
    sessions = settings.sessions
    write_report(
        again,
        page.with_name("summary.json"),
        [_files(results, session) for session in sessions],
        [_path(results, registry.ENVIRONMENT, session) for session in sessions],
    )
    stored, rendered = (read_bytes(path, MAX_PAGE).decode(errors="replace") for path in (page, again))
    if stored == rendered:
        return None
    return _first_difference(_parts(stored), _parts(rendered))


def has_this_plotly(page: str) -> bool:
    """Return whether a report embeds the plotting library that is installed here, to the last letter."""
    return get_plotlyjs() in page


def _path(results: Path, file: File, session: SessionNames) -> Path:
    return results / file.path.format(**session.model_dump())


def _files(results: Path, session: SessionNames) -> SessionFiles:
    return SessionFiles(
        name=session.session,
        machine=session.machine,
        power=_path(results, registry.POWER, session),
        phases=_path(results, registry.PHASES, session),
        requests=_path(results, registry.REQUESTS, session),
        receipts=_path(results, registry.RECEIPTS, session),
        session=_path(results, registry.SESSION, session),
        idle=_path(results, registry.IDLE_POWER, session),
        server_environment=_path(results, registry.SERVER_ENVIRONMENT, session),
        model=_path(results, registry.MODEL, session),
    )


def _parts(page: str) -> list[str]:
    """Return text and numbers of a page in turn; arrays of plots as numbers."""
    return _NUMBER.split(_ARRAY.sub(_as_text, page))


def _as_text(found: re.Match[str]) -> str:
    try:
        content = base64.b64decode(found[1])
        return ",".join(map(repr, struct.unpack(f"<{len(content) // 8}d", content)))
    except (ValueError, struct.error):
        return found[0]


def _first_difference(stored: list[str], rendered: list[str]) -> str | None:
    for number, (left, right) in enumerate(zip(stored, rendered, strict=False)):
        if left != right and not (number % 2 and math.isclose(float(left), float(right), rel_tol=RELATIVE_TOLERANCE)):
            before = "".join(stored[max(number - 4, 0) : number])[-_SHOWN:]
            shown = " ".join(f"{before}{left[:_SHOWN]}".split())
            return f"shows {shown!a}, where its files give {right[:_SHOWN]!a}"
    return None if len(stored) == len(rendered) else "is longer or shorter than its files give"
