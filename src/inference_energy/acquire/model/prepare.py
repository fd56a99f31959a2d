"""The rule `model`: bring a model into a folder that vLLM can load, and say exactly what it is."""

import hashlib
import json
from pathlib import Path
from typing import Any

from inference_energy.acquire.cache import cache_folder
from inference_energy.acquire.model.dummy import write_dummy
from inference_energy.acquire.model.hub import fetch_snapshot
from inference_energy.acquire.model.package import convert_package
from inference_energy.acquire.vllm.build import Say
from inference_energy.errors import InputError


def prepare(spec: dict[str, Any], python: list[str], say: Say = print) -> dict[str, Any]:
    """Make the model ready and describe it.

    Args:
        spec: the model's section of the configuration and its key there as `name`, under which the server lists it.
        python: words that start the interpreter which has vLLM (and so transformers and the hub's client).
        say: receives a line for each step.

    Returns:
        `name`, `source`, `path`, `revision`, `license`, `license_source`, `weights` (real or dummy),
        `vocabulary`, `parameters`, `architecture` (the content of config.json), `files` (SHA-256 of each) and `missing`
        (the reason for each that is null).

    Raises:
        InputError: the model is not there or cannot be used; the message names the key.
        RunError: fetching or converting it failed.
    """
    if spec["source"] == "attached":
        return _attached(spec["name"])
    name: str = spec["name"]
    facts: dict[str, Any] = {"revision": None, "license": None, "license_source": None, "weights": "real"}
    source = spec["source"]
    if source == "local":
        path = Path(spec["path"]).expanduser()
        facts["license"] = spec["license"]
        facts["license_source"] = "the configuration" if spec["license"] else None
    elif source == "hub":
        path, found = fetch_snapshot(name, spec["id"], spec["revision"], python, say)
        facts |= found
    elif source == "package":
        path, found = convert_package(spec, python, cache_folder("models"), say)
        facts |= found
    else:
        path = write_dummy(spec["architecture"], cache_folder("models"))
        facts["weights"] = "dummy"
    architecture = _architecture(name, path)
    files = {str(file.relative_to(path)): _sha256(file) for file in sorted(path.rglob("*")) if file.is_file()}
    facts |= {
        "vocabulary": architecture.get("vocab_size") or architecture.get("text_config", {}).get("vocab_size"),
        "parameters": _safetensors_parameters(path) if facts["weights"] == "real" else None,
        "architecture": architecture,
    }
    reasons = {
        "revision": f"a {source} model has no hub revision; the files' SHA-256 stand for it",
        "license": "the model does not state its licence; servers of this toolkit only load it locally",
        "license_source": "no licence is stated",
        "vocabulary": "config.json does not state vocab_size",
        "parameters": "no safetensors weights to count" if facts["weights"] == "real" else "the weights are dummies",
    }
    return {
        "name": name,
        "source": source,
        "path": str(path),
        **facts,
        "files": files,
        "missing": {key: reason for key, reason in reasons.items() if facts[key] is None},
    }


def _attached(name: str | None) -> dict[str, Any]:
    """What is known of the model of a server that was already running: its name at most."""
    reason = "the server was already running; its model's files cannot be seen"
    keys = ("revision", "license", "license_source", "weights", "vocabulary", "parameters", "architecture", "files")
    return {
        "name": name,
        "source": "attached",
        "path": None,
        **dict.fromkeys(keys),
        "missing": dict.fromkeys(keys, reason),
    }


def _architecture(name: str, path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((path / "config.json").read_text())
    except OSError as error:
        raise InputError(f"models.{name}.path: {path} holds no readable config.json ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise InputError(f"models.{name}.path: {path / 'config.json'} is not JSON: {error}") from error
    return content


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _safetensors_parameters(folder: Path) -> int | None:
    """Stored parameters, from the headers of the safetensors files: 8 bytes of length, then JSON with shapes."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for tensor, entry in header.items():
            if tensor != "__metadata__":
                count = 1
                for extent in entry["shape"]:
                    count *= extent
                total += count
    return total or None
