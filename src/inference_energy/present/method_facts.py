"""The report's section on method: machines, server, model, power sources, calibration and files, with their gaps."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inference_energy.contracts.documents.energy import CalibrationEntry
from inference_energy.contracts.documents.experiment import SummaryDocument, SummarySession
from inference_energy.contracts.documents.machine import EnvironmentDocument
from inference_energy.contracts.figure import json_values
from inference_energy.contracts.io import file_sha256
from inference_energy.present.figures_text import plain
from inference_energy.present.report_inputs import SessionData


@dataclass(frozen=True)
class Facts:
    """A titled list of facts; `missing` holds the unknown ones with their reasons."""

    title: str
    facts: list[tuple[str, str]]
    missing: list[tuple[str, str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    """The words of a command, or a long list that is shown folded."""


@dataclass(frozen=True)
class Subject:
    """Models, server, machines and dates for the line below the title."""

    models: list[str]
    server: str
    machines: list[str]
    dates: str
    dummy_weights: bool


def subject(
    sessions: Sequence[SessionData], environments: Sequence[EnvironmentDocument], summary: SummaryDocument
) -> Subject:
    """Return models, server version, hardware and dates; each falls back to the names in the summary."""
    models = [session.model for session in sessions if session.model]
    names = _unique([model.name for model in models if model.name])
    launches = [session.launch for session in summary.sessions]
    servers = [session.server_environment for session in sessions if session.server_environment]
    versions = _unique([server.vllm_version for server in servers if server.vllm_version])
    versions = versions or _unique([launch.server_version for launch in launches if launch.server_version])
    attached = any(launch.mode == "attach" for launch in launches)
    server = f"vLLM {' and '.join(versions)}" if versions else ("a running endpoint" if attached else "a server")
    machines = _unique([text for e in environments if (text := hardware(e))])
    return Subject(
        models=names or _unique([window.model for window in summary.cells if window.model]),
        server=server,
        machines=machines or _unique([window.machine for window in summary.cells if window.machine]),
        dates=_dates(sessions),
        dummy_weights=any(model.weights == "dummy" for model in models),
    )


def hardware(environment: EnvironmentDocument) -> str:
    """Return GPUs and CPU of a machine, such as `2 × NVIDIA H100 80GB HBM3, Intel Xeon Platinum 8480C`."""
    names = Counter(gpu.name or "GPU" for gpu in environment.gpus or ())
    parts = [f"{count} × {name}" if count > 1 else name for name, count in names.items()]
    cpu = environment.cpu.model if environment.cpu else None
    return ", ".join([*parts, *([cpu] if cpu else [])])


def environment_facts(paths: Sequence[Path], environments: Sequence[EnvironmentDocument]) -> list[Facts]:
    """Return a list of facts for each machine; sessions that recorded the same facts share one.

    Args:
        paths: path of each environment.json: in {machine}/sessions/{session}/ or in a folder named after the machine.
        environments: their contents, in the same order.
    """
    groups: list[tuple[list[str], EnvironmentDocument]] = []
    for path, environment in zip(paths, environments, strict=True):
        of_session = len(path.parts) > 3 and path.parts[-3] == "sessions"
        name = f"{path.parts[-4]}, session {path.parent.name}" if of_session else path.parent.name
        same = next((names for names, environment_of_group in groups if environment_of_group == environment), None)
        if same is None:
            groups.append(([name], environment))
        else:
            same.append(name)
    contents = [("; ".join(names), json_values(environment)) for names, environment in groups]
    return [Facts(title, _facts(content), _gaps(content)) for title, content in contents]


def session_facts(session: SessionData) -> list[Facts]:
    """Return the facts about model, server, power sources and course of one session."""
    lists = []
    if session.model:
        content = json_values(session.model)
        # Local paths mean nothing to a reader elsewhere, and the architecture is a page of numbers in model.json.
        named = {key: value for key, value in content.items() if key not in ("files", "path", "architecture")}
        files = [(f"sha256 of {name}", digest) for name, digest in (session.model.files or {}).items()]
        lists.append(Facts("Model", [*_facts(named), *files], _gaps(content)))
    if session.server_environment:
        content = json_values(session.server_environment)
        listed = {key: value for key, value in content.items() if key not in ("packages", "command")}
        packages = session.server_environment.packages or []
        lists.append(Facts("Server environment", _facts(listed), _gaps(content), packages))
    sources = session.power_metadata.get("source")
    if sources:
        rows = sources if isinstance(sources, list) else [sources]
        source_facts = [
            (str(row.get("name", "source")), plain({k: v for k, v in row.items() if k != "name"}))
            for row in rows
            if isinstance(row, dict)
        ]
        counts = json_values(session.session.power) if session.session else {}
        lists.append(
            Facts(
                "Power sources and sampler", [*source_facts, *_facts({k: counts[k] for k in counts if k != "sources"})]
            )
        )
    if session.session:
        content, launch = json_values(session.session), session.session.launch
        rest = {key: value for key, value in content.items() if key not in ("power", "files")}
        # A null is no gap here: `last_error` is null if nothing went wrong.
        command = (launch and launch.command) or []
        lists.append(Facts("Session", _facts(rest), _gaps(content, silent=False), command))
    return lists


def files(output: Path, paths: Sequence[Path]) -> list[tuple[str, str, str]]:
    """Return relative path, size and SHA-256 of each file from which the figures can be recomputed."""
    rows = []
    for path in dict.fromkeys(paths):
        rows.append((os.path.relpath(path, output.parent), f"{path.stat().st_size:,} bytes", file_sha256(path)))
    return rows


def _unique(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _dates(sessions: Sequence[SessionData]) -> str:
    days = set()
    for session in sessions:
        anchor = session.power_metadata.get("clock_anchor")
        if isinstance(anchor, dict) and "unix_ns" in anchor:
            days.add(datetime.fromtimestamp(anchor["unix_ns"] / 1e9, tz=UTC).date())
    texts = [f"{day.day} {day:%B %Y}" for day in sorted(days)]
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}" if texts else ""


def _facts(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the values that are not null, except commands, which are shown word by word."""
    return [
        (key, plain(value))
        for key, value in _leaves(content)
        if value is not None and key != "version" and not (key.endswith("command") and isinstance(value, list))
    ]


def _gaps(content: dict[str, Any], *, silent: bool = True) -> list[tuple[str, str]]:
    """Return the keys that `missing` explains and, if `silent`, every other null."""
    reasons = content.get("missing")
    reasons = {str(key): str(why) for key, why in reasons.items()} if isinstance(reasons, dict) else {}
    unexplained = [key for key, value in _leaves(content) if silent and value is None and key not in reasons]
    return [*reasons.items(), *((key, "no reason was recorded") for key in unexplained)]


def _leaves(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = f"{prefix}{key}"
        if not prefix and key == "missing":
            continue
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{name}.")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                yield from _leaves(item, f"{name}.{index}.")
        else:
            yield name, value


def calibration_texts(sessions: Sequence[SummarySession]) -> list[str]:
    """Return a sentence for each calibration that was applied, and for each that was not; each once.

    Args:
        sessions: sessions of the summary.
    """
    texts = []
    for session in sessions:
        if session.calibration is None:
            continue
        texts += [
            f"{session.session}: the power of {entry.name} is calibrated against {entry.meter}, "
            f"{entry.date[:10]}: {_gain_text(entry)}."
            for entry in session.calibration.applied
        ]
        texts += [f"{session.session}: {note.detail}" for note in session.calibration.notes]
    return list(dict.fromkeys(texts))


def calibration_facts(session: SummarySession | None) -> list[Facts]:
    """Return the facts about the calibration of one session; none if the configuration names no file.

    Args:
        session: the session in the summary; None if it is not in there.
    """
    calibration = session.calibration if session else None
    if calibration is None:
        return []
    facts = [
        (
            entry.name,
            f"{_gain_text(entry)}; against {entry.meter} ({entry.grade}), {entry.date}, {entry.phases} phases, "
            f"chi² per degree of freedom {entry.chi2_per_dof:.2g}; sum of {', '.join(entry.channels)}",
        )
        for entry in calibration.applied
    ]
    missing = [("not applied", note.detail) for note in calibration.notes]
    return [Facts("Calibration", [*facts, ("sha256 of the file", calibration.sha256)], missing)]


def meters(sessions: Sequence[SummarySession]) -> list[str]:
    """Return the meters of the calibrations that were applied, each once."""
    calibrations = [session.calibration for session in sessions if session.calibration]
    return list(dict.fromkeys(entry.meter for calibration in calibrations for entry in calibration.applied))


def _gain_text(entry: CalibrationEntry) -> str:
    """Return gain and offset with their standard uncertainties."""
    return (
        f"gain {entry.gain:.4f}, offset {entry.offset_w:.1f} W, standard uncertainties "
        f"{entry.u_gain:.2g} and {entry.u_offset_w:.2g} W"
    )
