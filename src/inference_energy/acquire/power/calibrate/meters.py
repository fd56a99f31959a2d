"""The external meters that a node can be compared with, by the names of their sources."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from inference_energy.acquire.power.base import PowerSource
from inference_energy.acquire.power.settings import (
    IpmiSettings,
    PduSettings,
    RedfishSettings,
    Settings,
    SmartPlugSettings,
)
from inference_energy.acquire.power.sources.ipmi import IpmiSource
from inference_energy.acquire.power.sources.pdu import PduSource
from inference_energy.acquire.power.sources.redfish import RedfishSource
from inference_energy.acquire.power.sources.smart_plug import SmartPlugSource
from inference_energy.errors import InputError

METERS: dict[str, tuple[Callable[..., PowerSource], type[Settings]]] = {
    "smart-plug": (SmartPlugSource, SmartPlugSettings),
    "pdu": (PduSource, PduSettings),
    "redfish": (RedfishSource, RedfishSettings),
    "ipmi": (IpmiSource, IpmiSettings),
}


def meter_source(name: str, settings: str) -> PowerSource:
    """Set a meter up.

    Args:
        name: of its source.
        settings: its settings as JSON, or the path of a JSON file with them. They hold no secret.

    Raises:
        InputError: the name is unknown, or the settings do not fit.
    """
    if name not in METERS:
        raise InputError(f"--meter {name}: write one of {', '.join(METERS)}")
    source, kind = METERS[name]
    try:
        return source(kind.model_validate(_content(settings)))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise InputError(f"--settings: {'; '.join(faults)}") from error


def _content(settings: str) -> Any:
    text = settings
    if not settings.lstrip().startswith("{"):
        try:
            text = Path(settings).read_text()
        except OSError as error:
            raise InputError(f"--settings {settings}: {error.strerror}; write JSON or a JSON file's name") from error
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"--settings: not JSON: {error}") from error
