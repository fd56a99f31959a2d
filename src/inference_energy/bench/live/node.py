"""Folder of a virtual node: its settings, when it began, and the files that its processes share."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from inference_energy.bench.config import Node
from inference_energy.contracts.io import atomic_write
from inference_energy.errors import InputError

VARIABLE = "INFERENCE_ENERGY_SIMULATED"
"""Variable that names the node's folder. A process with it sees the virtual machine in place of the real one."""


@dataclass(frozen=True)
class NodeFolder:
    """A node on disk.

    Attributes:
        folder: absolute path.
        node: its settings.
        origin_ns: when it began, on the monotonic clock.
    """

    folder: Path
    node: Node
    origin_ns: int

    @property
    def traces(self) -> Path:
        """Folder with one trace file for each process that served."""
        return self.folder / "traces"

    @property
    def powercap(self) -> Path:
        """Folder of the RAPL counters, if the node has any."""
        return self.folder / "powercap"

    @property
    def truth(self) -> Path:
        """Folder with one record of truth for each server process."""
        return self.folder / "truth"


def make_node(folder: Path, node: Node) -> NodeFolder:
    """Begin a node now, in a new or empty folder.

    Raises:
        InputError: the folder holds something, or the node's GPU or model is not known.
    """
    _ = node.device, node.shape
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"bench: {folder} is not empty; name a new folder, for a node begins once")
    node_folder = NodeFolder(folder.absolute(), node, time.monotonic_ns())
    for part in (node_folder.traces, node_folder.truth):
        part.mkdir(parents=True)
    _write(folder / "origin.json", json.dumps({"origin_ns": node_folder.origin_ns}))
    _write(folder / "node.json", node.model_dump_json(indent=1))
    return node_folder


def open_node(folder: Path) -> NodeFolder:
    """Open a node's folder.

    Raises:
        InputError: it holds no node.
    """
    node = Node.read(folder / "node.json")
    try:
        origin_ns = int(json.loads((folder / "origin.json").read_text())["origin_ns"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / 'origin.json'}: says no origin_ns: {error}") from error
    return NodeFolder(folder.absolute(), node, origin_ns)


def node_here() -> NodeFolder | None:
    """Return the node that this process sees; None on a real machine.

    Raises:
        InputError: the variable names a folder that holds no node.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        return None
    try:
        return open_node(Path(folder))
    except InputError as error:
        raise InputError(f"{VARIABLE}: {error}") from error


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as partial:
        partial.write_text(text + "\n")
