"""Profiles on disk: `<folder>/<uuid>.json`, as `inference-energy characterize` writes them, for later runs to cite."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

PROFILES = Path("results/characterisation")


def profile_path(folder: Path, uuid: str) -> Path:
    """Where the profile of a GPU lies."""
    return folder / f"{uuid.replace('/', '_')}.json"


def profiles_of(gpus: Sequence[str], folder: Path = PROFILES) -> dict[str, dict[str, str]]:
    """For each GPU (UUID) that has a profile: `file`, below the folder of results, and its `sha256`."""
    found = {}
    for uuid in gpus:
        path = profile_path(folder, uuid)
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[uuid] = {"file": f"{folder.name}/{path.name}", "sha256": digest}
    return found


def averaging_windows_s(gpus: Sequence[str], folder: Path = PROFILES) -> dict[str, float]:
    """What the average power of each GPU (UUID) was found to average over [s], where its profile gives that."""
    found = {}
    for uuid in gpus:
        try:
            window = json.loads(profile_path(folder, uuid).read_text())["readings"]["average"]["window"]
            found[uuid] = float(window["value"])
        except (OSError, ValueError, KeyError, TypeError):  # none, of another version, or without this number
            continue
    return found
