"""Which of a machine's GPUs are meant, by UUID or index."""

from collections.abc import Sequence

from inference_energy.acquire.power.base import SourceError


def select_gpus(wanted: Sequence[str | int] | None, present: Sequence[str]) -> list[str]:
    """The UUIDs meant, each once, in the order asked for.

    Args:
        wanted: UUIDs (a beginning is enough) or indices into `present`; None for all.
        present: the UUIDs that this machine shows, in its order.

    Raises:
        SourceError: an empty list, or a name that fits no GPU here or more than one.
    """
    if wanted is None:
        return list(present)
    if not wanted:
        raise SourceError("power.gpus is an empty list, which asks for no GPU: write null for all")
    return list(dict.fromkeys(_pick(one, present) for one in wanted))


def _pick(wanted: str | int, present: Sequence[str]) -> str:
    if str(wanted).startswith("MIG-"):
        raise SourceError(f"{wanted} is a MIG instance, which has only its card's power: name the whole GPU")
    if str(wanted).isdigit():
        found = list(present[int(wanted) : int(wanted) + 1])
    else:
        found = [uuid for uuid in present if uuid.lower().startswith(str(wanted).lower())]
    if len(found) != 1:
        names = ", ".join(f"{index}: {uuid}" for index, uuid in enumerate(present))
        trouble = "no GPU" if not found else f"{len(found)} GPUs"
        raise SourceError(f"{trouble} here match(es) {wanted!r}; write an index or a UUID of: {names}")
    return found[0]
