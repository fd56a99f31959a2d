"""A trace of any format, as far as a cell replays it."""

from inference_energy.config.load.arrivals import TraceArrival
from inference_energy.plan.arrivals.traces import azure, burstgpt, mooncake
from inference_energy.plan.arrivals.traces.trace import Trace, replayed, wanted_s


def read_trace(arrival: TraceArrival, duration_s: float, key: str) -> Trace:
    """The requests of a trace that fall into a cell.

    Args:
        arrival: which trace, which part, how fast.
        duration_s: of the cell.
        key: where the arrival stands in the configuration.

    Raises:
        InputError: the file cannot be read, is of another format, or has nothing for this cell.
    """
    until_s, where = wanted_s(arrival, duration_s), f"{key}.path"
    match arrival.format:
        case "azure":
            rows = azure.read(arrival.path, until_s, where)
        case "burstgpt":
            rows = burstgpt.read(arrival.path, until_s, where)
        case "mooncake":
            rows = mooncake.read(arrival.path, until_s, arrival.block_tokens, where)
    return replayed(rows, arrival, duration_s, key)
