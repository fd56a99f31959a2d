"""Selection of GPUs by UUID or index."""

from collections.abc import Sequence

from inference_energy.acquire.power.base import SourceError


def select_gpus(names: Sequence[str | int] | None, present: Sequence[str]) -> list[str]:
    """Return the UUIDs of the selected GPUs, each once, in the order of the names.

    Args:
        names: UUIDs (a beginning is enough) or indices into `present`; None for all.
        present: UUIDs of this machine's GPUs, in its order.

    Raises:
        SourceError: an empty list, or a name that fits no GPU here or more than one.
    """
    if names is None:
        return list(present)
    if not names:
        raise SourceError("power.gpus is an empty list, which asks for no GPU: write null for all")
    return list(dict.fromkeys(_pick(name, present) for name in names))


def _pick(name: str | int, present: Sequence[str]) -> str:
    if str(name).startswith("MIG-"):
        raise SourceError(f"{name} is a MIG instance, which has only its card's power: name the whole GPU")
    if str(name).isdigit():
        matches = list(present[int(name) : int(name) + 1])
    else:
        matches = [uuid for uuid in present if uuid.lower().startswith(str(name).lower())]
    if len(matches) != 1:
        names = ", ".join(f"{index}: {uuid}" for index, uuid in enumerate(present))
        trouble = "no GPU" if not matches else f"{len(matches)} GPUs"
        raise SourceError(f"{trouble} here match(es) {name!r}; write an index or a UUID of: {names}")
    return matches[0]
