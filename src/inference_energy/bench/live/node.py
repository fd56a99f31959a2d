"""The folder of a virtual node: what it is, when it began, and what its processes tell each other through files."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from inference_energy.bench.config import Node
from inference_energy.contracts.io import atomic_write
from inference_energy.errors import InputError

VARIABLE = "INFERENCE_ENERGY_SIMULATED"
"""Names the node's folder. A process that has it sees the virtual machine in place of the real one."""


@dataclass(frozen=True)
class NodeFolder:
    """A node on disk.

    Attributes:
        folder: where it lies.
        node: what it is.
        origin_ns: when it began, on the monotonic clock.
    """

    folder: Path
    node: Node
    origin_ns: int

    @property
    def traces(self) -> Path:
        """One trace file a process that served."""
        return self.folder / "traces"

    @property
    def powercap(self) -> Path:
        """The RAPL tree, where the node has one."""
        return self.folder / "powercap"

    @property
    def truth(self) -> Path:
        """What servers write about themselves, one folder a process."""
        return self.folder / "truth"


def make_node(folder: Path, node: Node) -> NodeFolder:
    """Begin a node now, in a folder that is not there yet or is empty.

    Raises:
        InputError: the folder holds something, or the node's GPU or model is not known.
    """
    _ = node.device, node.shape
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"bench: {folder} is not empty; name a new folder, for a node begins once")
    made = NodeFolder(folder.absolute(), node, time.monotonic_ns())
    for part in (made.traces, made.truth):
        part.mkdir(parents=True)
    _write(folder / "origin.json", json.dumps({"origin_ns": made.origin_ns}))
    _write(folder / "node.json", node.model_dump_json(indent=1))
    return made


def open_node(folder: Path) -> NodeFolder:
    """A node that was made before.

    Raises:
        InputError: there is none.
    """
    node = Node.read(folder / "node.json")
    try:
        origin_ns = int(json.loads((folder / "origin.json").read_text())["origin_ns"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / 'origin.json'}: says no origin_ns: {error}") from error
    return NodeFolder(folder.absolute(), node, origin_ns)


def node_here() -> NodeFolder | None:
    """The node that this process sees; None on a real machine.

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
