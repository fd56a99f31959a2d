"""Stage `summary`: everything of an experiment in one document, for machines and for the report."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

from msgspec import structs

from inference_energy import __version__
from inference_energy.contracts.documents.document import VERSION
from inference_energy.contracts.documents.energy import CalibrationRecord, CarbonDocument, EnergyDocument, FitDocument
from inference_energy.contracts.documents.estimates import EstimatesDocument
from inference_energy.contracts.documents.experiment import (
    MetricsDocument,
    PlannedSession,
    SummaryDocument,
    SummaryIdle,
    SummaryLaunch,
    SummarySession,
    SummaryWarmup,
    SummaryWindow,
    ToolkitVersion,
    TrimmedTimes,
)
from inference_energy.contracts.documents.session import SessionDocument
from inference_energy.contracts.documents.windows import (
    ClientCost,
    LaunchDocument,
    SteadyLoadDocument,
    WarmupDocument,
)
from inference_energy.contracts.figure import Figure
from inference_energy.errors import InputError


@dataclass(frozen=True)
class SessionParts:
    """session.json and the derived documents of one session."""

    session: SessionDocument
    launch: LaunchDocument
    warmup: WarmupDocument
    steady: SteadyLoadDocument
    energy: EnergyDocument
    carbon: CarbonDocument


def match_parts(
    *,
    session: Sequence[SessionDocument],
    launch: Sequence[LaunchDocument],
    warmup: Sequence[WarmupDocument],
    steady: Sequence[SteadyLoadDocument],
    energy: Sequence[EnergyDocument],
    carbon: Sequence[CarbonDocument],
) -> list[SessionParts]:
    """Sort the documents of some sessions, given in any order, by session.

    Raises:
        InputError: a session lacks a document, or has one twice.
    """
    sessions = _by_session("session", session)
    launches, warmups = _by_session("launch", launch), _by_session("warmup", warmup)
    loads, energies, carbons = (
        _by_session("steady", steady),
        _by_session("energy", energy),
        _by_session("carbon", carbon),
    )
    kinds: tuple[Collection[_SessionKey], ...] = (sessions, launches, warmups, loads, energies, carbons)
    for machine, name in dict.fromkeys(key for documents in kinds for key in documents):
        absent = [
            field.name
            for field, documents in zip(fields(SessionParts), kinds, strict=True)
            if (machine, name) not in documents
        ]
        if absent:
            raise InputError(f"session {name} of {machine} lacks its file(s): {', '.join(absent)}")
    return [
        SessionParts(sessions[key], launches[key], warmups[key], loads[key], energies[key], carbons[key])
        for key in sessions
    ]


def in_order(parts: Iterable[SessionParts], sessions: Iterable[PlannedSession]) -> list[SessionParts]:
    """Return the parts in the order of a plan's sessions.

    Raises:
        InputError: the plan has a session without parts.
    """
    by_session = {(part.energy.machine, part.energy.session): part for part in parts}
    planned = [(session.machine, session.session) for session in sessions]
    absent = [name for machine, name in planned if (machine, name) not in by_session]
    if absent:
        raise InputError(f"the files of session(s) {', '.join(absent)} are not given")
    return [by_session[key] for key in planned]


def summary(
    experiment: str,
    sessions: Sequence[SessionParts],
    fits: Iterable[FitDocument],
    estimates: Iterable[EstimatesDocument] | None = None,
    metrics: MetricsDocument | None = None,
    session_sha256: Mapping[tuple[str, str], str] | None = None,
) -> SummaryDocument:
    """Return summary.json of an experiment.

    Args:
        experiment: its name.
        sessions: the parts of each session, in the order of the result.
        fits: the fit of each server and machine, in any order.
        estimates: estimates.json of each session, in any order; None for an experiment without them.
        metrics: metrics.json; None leaves it out.
        session_sha256: SHA-256 of session.json by machine and session, of those that hold the digests of their files.

    Raises:
        InputError: the estimates are not those of the sessions.
    """
    servers = list(dict.fromkeys((parts.energy.machine, parts.energy.server) for parts in sessions))
    ordered_fits = sorted(fits, key=lambda fit: servers.index((fit.machine, fit.server)))
    return SummaryDocument(
        version=VERSION,
        experiment=experiment,
        machines=list(dict.fromkeys(parts.energy.machine for parts in sessions)),
        toolkit=ToolkitVersion(version=__version__),
        factors=sessions[0].carbon.factors if sessions else None,
        cells=[_window(parts, name) for parts in sessions for name in parts.energy.windows],
        idle=[_idle(parts) for parts in sessions],
        sessions=[_session(parts, session_sha256 or {}) for parts in sessions],
        fits=ordered_fits,
        estimates=None if estimates is None else _ordered_estimates(sessions, estimates),
        notes=_notes(sessions, ordered_fits),
        metrics=metrics,
    )


_SessionKey = tuple[str, str]
_SessionDocument = (
    SessionDocument | LaunchDocument | WarmupDocument | SteadyLoadDocument | EnergyDocument | CarbonDocument
)
D = TypeVar("D", bound=_SessionDocument)


def _by_session(kind: str, documents: Iterable[D]) -> dict[_SessionKey, D]:
    by_session: dict[_SessionKey, D] = {}
    for document in documents:
        key = (document.machine, document.session)
        if key in by_session:
            raise InputError(f"the {kind} file of session {document.session} is given twice")
        by_session[key] = document
    return by_session


def _ordered_estimates(
    sessions: Sequence[SessionParts], estimates: Iterable[EstimatesDocument]
) -> list[EstimatesDocument]:
    """Return the estimates in the order of the sessions."""
    by_session = {(document.machine, document.session): document for document in estimates}
    keys = [(parts.energy.machine, parts.energy.session) for parts in sessions]
    if sorted(by_session) != sorted(keys):
        raise InputError("the estimates that are given are not those of the sessions, one each")
    return [by_session[key] for key in keys]


def _window(parts: SessionParts, name: str) -> SummaryWindow:
    energy, load, carbon = parts.energy.windows[name], parts.steady.windows[name], parts.carbon.windows[name]
    return SummaryWindow(
        cell=f"{parts.energy.session}.{name}",
        machine=parts.energy.machine,
        session=parts.energy.session,
        window=TrimmedTimes(name=name, start_ns=energy.start_ns, end_ns=energy.end_ns),
        server=parts.energy.server,
        model=parts.session.model,
        kind=energy.kind,
        load=load.load,
        figures={**energy.figures, **load.figures, **carbon.figures},
        devices=energy.devices,
        counts=load.counts,
        checks=load.checks,
        client=_client(load.client, energy.client),
    )


def _client(cost: ClientCost | None, energy: Mapping[str, Figure]) -> ClientCost | None:
    """Return the cost of the load client with its modelled energy; None where it was not recorded."""
    return None if cost is None else structs.replace(cost, figures={**cost.figures, **energy})


def _idle(parts: SessionParts) -> SummaryIdle:
    return SummaryIdle(
        machine=parts.energy.machine,
        session=parts.energy.session,
        server=parts.energy.server,
        cold_power_w=parts.energy.idle.cold_power_w,
        loaded_power_w=parts.energy.idle.loaded_power_w,
        post_power_w=parts.energy.idle.post_power_w,
    )


def _session(parts: SessionParts, session_sha256: Mapping[tuple[str, str], str]) -> SummarySession:
    launch, warmup = parts.launch, parts.warmup
    return SummarySession(
        machine=parts.energy.machine,
        session=parts.energy.session,
        server=parts.energy.server,
        launch=SummaryLaunch(
            ok=launch.ok,
            mode=launch.mode,
            ready_after_s=launch.ready_after_s,
            server_version=launch.server_version,
            reasons=launch.reasons,
        ),
        warmup=SummaryWarmup(
            requests=warmup.requests, failed=warmup.failed, throughput=warmup.throughput, reasons=warmup.reasons
        ),
        client=parts.session.client,
        calibration=parts.energy.calibration,
        session_sha256=session_sha256.get((parts.energy.machine, parts.energy.session)),
    )


def _calibration_notes(calibration: CalibrationRecord | None) -> list[str]:
    if calibration is None:
        return []
    applied = [
        f"the power of {entry.name} is calibrated against {entry.meter}, {entry.date[:10]}."
        for entry in calibration.applied
    ]
    return [*applied, *(note.detail for note in calibration.notes)]


def _notes(sessions: Sequence[SessionParts], fits: Iterable[FitDocument]) -> list[str]:
    """Return sentences that hold for whole sessions or servers, each once."""
    notes = [parts.energy.boundary_note for parts in sessions if parts.energy.boundary_note]
    for parts in sessions:
        name, grade = parts.energy.session, parts.energy.grade
        if grade in ("modelled", "simulated"):
            notes.append(f"{name}: power is {grade}, not measured.")
        notes += [f"{name}: {sentence}" for sentence in _calibration_notes(parts.energy.calibration)]
        notes += [f"{name}: {why.detail}" for why in (*parts.launch.reasons, *parts.warmup.reasons)]
    for fit in fits:
        excluded = [window.cell for window in fit.excluded]
        if excluded:
            notes.append(f"{fit.server}: left out of the fit: {', '.join(excluded)}.")
    return list(dict.fromkeys(notes))
