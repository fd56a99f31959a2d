"""What the members of an archive must be, beside what its manifest states: all that belong, no others, one chain.

The chain: session.json holds the SHA-256 of every raw file of its session, summary.json that of session.json, and
report.html those of both and of what it shows. Who changes one file must change all that follow, and the figures.
"""

import html
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from inference_energy.contracts.documents.document import Document, read_document
from inference_energy.contracts.documents.experiment import ExperimentDocument, SummaryDocument
from inference_energy.contracts.documents.machine import EnvironmentDocument, ModelDocument, ServerEnvironmentDocument
from inference_energy.contracts.documents.session import IdleDocument, SessionDocument
from inference_energy.contracts.outside import MIB, decode_json, read_bytes
from inference_energy.errors import InputError
from inference_energy.provenance.archive_members import (
    CODE,
    DIFF,
    RESULTS,
    is_code,
    is_result,
    needed_results,
)
from inference_energy.provenance.experiment_json import NAME as PLAN
from inference_energy.provenance.experiment_json import PlannedSession
from inference_energy.provenance.manifest import Manifest

MAX_DOCUMENT = 256 * MIB
"""Size of a JSON document. A day of 8 GPUs gives a summary of a few MB."""

README = "README.txt"
_REPORT_ROW = re.compile(
    r'<th scope="row"><code>([^<]{1,400})</code></th>\s*<td data-label="size">[^<]{0,40}</td>\s*'
    r'<td data-label="SHA-256"><code>([0-9a-f]{16,64})'
)
_HARDWARE = ("name", "uuid", "memory_bytes", "compute_capability")


def misplaced_members(manifest: Manifest, plan: Mapping[str, Any], planned: list[PlannedSession]) -> dict[str, str]:
    """Return the problem of each member that no archive of the experiment holds, and of each that every one holds.

    Args:
        manifest: the manifest.
        plan: the plan in experiment.json.
        planned: its sessions.
    """
    experiment = manifest.experiment
    listed = {entry.path for entry in manifest.members}
    needed = {f"{RESULTS}/{name}" for name in needed_results(experiment, planned)} | {README}
    problems = dict.fromkeys(sorted(needed - listed), "missing: every archive holds it")
    for name in sorted(listed - needed):
        top, _, rest = name.partition("/")
        if not (is_result(rest, experiment, planned) if top == RESULTS else top == CODE and is_code(rest)):
            problems[name] = "does not belong to the experiment, though the manifest lists it"
    for section, name in (("analysis", "calibration.json"), ("estimate", "estimate_calibration.json")):
        settings = plan.get(section)
        path = f"{RESULTS}/{experiment}/{name}"
        if path in listed and not (isinstance(settings, dict) and settings.get("calibration")):
            problems[path] = f"does not belong to the experiment, whose {section}.calibration names no file"
    code = manifest.code.get("uncommitted_sha256")
    diff = next((entry.sha256 for entry in manifest.members if entry.path == DIFF), None)
    if code != diff:
        problems[DIFF] = "is not the file whose SHA-256 the manifest states in code.uncommitted_sha256"
    return problems


def broken_links(folder: Path, manifest: Manifest, planned: list[PlannedSession]) -> tuple[dict[str, str], list[str]]:
    """Return the problem of each raw file that is not the one that was measured with, and session.json without digests.

    Args:
        folder: where the archive was unpacked.
        manifest: the manifest; the members are as it states.
        planned: the sessions of the plan.

    Raises:
        InputError: a document cannot be used.
    """
    digests = {entry.path: entry.sha256 for entry in manifest.members}
    problems: dict[str, str] = {}
    unchained: list[str] = []
    for session in planned:
        raw = f"{RESULTS}/raw/{session.machine}"
        own = f"{raw}/sessions/{session.session}"
        document = read_member(folder, f"{own}/{SessionDocument.FILE}", SessionDocument)
        recorded = document.files
        if recorded is None:
            unchained.append(f"{own}/{SessionDocument.FILE}")
        else:
            folders = (own, f"{raw}/servers/{session.server}", f"{raw}/idle/{session.server}")
            present = {name for name in digests if name.rpartition("/")[0] in folders}
            names = {f"{raw}/{name}": digest for name, digest in recorded.items()}
            for name in sorted((present | names.keys()) - {f"{own}/{SessionDocument.FILE}"}):
                if digests.get(name) != names.get(name):
                    problems[name] = (
                        f"is not the file that session {session.session} was measured with, says its session.json"
                        if name in names
                        else f"was not there when session {session.session} was measured, says its session.json"
                    )
        of_session = read_member(folder, f"{own}/{EnvironmentDocument.FILE}", EnvironmentDocument)
        of_machine = read_member(folder, f"{raw}/{EnvironmentDocument.FILE}", EnvironmentDocument)
        if _hardware(of_session) != _hardware(of_machine):
            problems[f"{raw}/{EnvironmentDocument.FILE}"] = (
                f"names another machine than that of session {session.session}; `snakemake` captures it again"
            )
    return problems, unchained


def report_links(page: str, manifest: Manifest) -> tuple[dict[str, str], bool]:
    """Return the problem of each file that report.html does not list as it is, and whether it lists any.

    Args:
        page: text of the report.
        manifest: the manifest.
    """
    digests = {entry.path: entry.sha256 for entry in manifest.members}
    here = f"{RESULTS}/{manifest.experiment}"
    problems = {}
    rows = _REPORT_ROW.findall(page)
    for path, digest in rows:
        name = posixpath.normpath(posixpath.join(here, html.unescape(path)))
        if not digests.get(name, "").startswith(digest):
            problems[name] = "is not the file that report.html was made from, say the digests in it"
    return problems, bool(rows)


def read_member(folder: Path, name: str, kind: type[Document]) -> Any:
    """Read a document of an archive; messages name the member.

    Raises:
        InputError: its content is not that of such a document.
    """
    try:
        return read_document(folder / name, kind)
    except InputError as error:
        raise InputError(str(error).replace(f"{folder}/", "")) from error


def documents(folder: Path, experiment: str, planned: list[PlannedSession]) -> Iterator[tuple[str, type[Document]]]:
    """Yield the name and type of every JSON document that the figures or the report are computed from."""
    yield f"{RESULTS}/{experiment}/{PLAN}", ExperimentDocument
    yield f"{RESULTS}/{experiment}/{SummaryDocument.FILE}", SummaryDocument
    for session in planned:
        raw = f"{RESULTS}/raw/{session.machine}"
        server, own = f"{raw}/servers/{session.server}", f"{raw}/sessions/{session.session}"
        yield f"{server}/{ServerEnvironmentDocument.FILE}", ServerEnvironmentDocument
        yield f"{server}/{ModelDocument.FILE}", ModelDocument
        yield f"{raw}/idle/{session.server}/{IdleDocument.FILE}", IdleDocument
        yield f"{own}/{SessionDocument.FILE}", SessionDocument
        yield f"{own}/{EnvironmentDocument.FILE}", EnvironmentDocument
        yield f"{raw}/{EnvironmentDocument.FILE}", EnvironmentDocument


def read_json_member(folder: Path, name: str) -> Any:
    """Decode a JSON member; messages name it.

    Raises:
        InputError: it is no JSON, too large, too deep, or holds a number beyond 64 bits.
    """
    try:
        content = decode_json(read_bytes(folder / name, MAX_DOCUMENT))
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error
    except InputError as error:
        raise InputError(str(error).replace(f"{folder}/", "")) from error
    path = _beyond_64_bits(content, "")
    if path is not None:
        raise InputError(f"{name}: {path or 'it'} holds a number beyond 64 bits")
    return content


def _beyond_64_bits(content: Any, path: str) -> str | None:
    if isinstance(content, bool) or content is None or isinstance(content, str):
        return None
    if isinstance(content, int):
        return path if not -(2**63) <= content < 2**64 else None
    if isinstance(content, float):
        return path if content in (float("inf"), float("-inf")) else None
    items = content.items() if isinstance(content, dict) else enumerate(content)
    return next(
        (found for key, value in items if (found := _beyond_64_bits(value, _joined(path, key))) is not None), None
    )


def _joined(path: str, key: object) -> str:
    name = ascii(str(key))[1:-1][:60]
    return f"{path}.{name}" if path else name


def _hardware(environment: EnvironmentDocument) -> str:
    gpus = [{key: getattr(gpu, key) for key in _HARDWARE} for gpu in environment.gpus or ()]
    cpu = environment.cpu
    return json.dumps(
        [gpus, cpu and [cpu.model, cpu.sockets, cpu.cores], environment.simulated], default=str, sort_keys=True
    )
