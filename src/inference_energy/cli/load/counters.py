"""The token counters of the servers under test, read before and after the load."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from inference_energy.acquire.server.access import Access
from inference_energy.acquire.server.metrics import MetricsPoller
from inference_energy.acquire.server.metrics_log import compact
from inference_energy.contracts.server_metrics import ON_CHANGE, SCHEMA
from inference_energy.contracts.tables import read_json, read_table, write_json


async def scrape(endpoints: Sequence[str], folder: Path, access: Access) -> None:
    """Read /metrics of each endpoint once nothing runs there, or after two seconds, into files of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    await asyncio.gather(*(_scrape(url, folder, number, access) for number, url in enumerate(dict.fromkeys(endpoints))))


def read_counters(before: Path, after: Path, times_ns: tuple[int, int]) -> tuple[pd.DataFrame | None, str | None]:
    """The scrapes as rows of server_metrics.parquet, those of all endpoints under one time each: so they add up.

    Args:
        before: a folder of `scrape`.
        after: another.
        times_ns: the times as which the rows are given.

    Returns:
        The rows, or None and why there are none.
    """
    frames = []
    for facts in map(read_json, [*sorted(before.glob("*.json")), *sorted(after.glob("*.json"))]):
        if facts["error"]:
            return None, f"no /metrics at {facts['endpoint']} ({facts['error']})"
    for path in sorted(before.glob("*.parquet")):
        first, last = _newest(path), _newest(after / path.name)
        # A row of these says that something changed.
        known = first.index.intersection(last.index)
        same = known[(first.loc[known, "value"] == last.loc[known, "value"]).to_numpy()]
        last = last.drop(index=[key for key in same if key[0].endswith(ON_CHANGE)])
        frames += [rows.assign(timestamp_ns=time) for rows, time in zip((first, last), times_ns, strict=True)]
    return pd.concat(frames).reset_index(), None


def _newest(path: Path) -> pd.DataFrame:
    """The last value of each series, by name and labels."""
    rows = read_table(path, SCHEMA).drop_duplicates(["name", "labels"], keep="last")
    return rows.set_index(["name", "labels"])


async def _scrape(endpoint: str, folder: Path, number: int, access: Access) -> None:
    log = folder / f"{number}.arrows"
    poller = MetricsPoller(endpoint, log=log, access=access)
    await poller.scrape_idle()
    error = poller.last_error if poller.errors == poller.scrapes else None
    await poller.stop()
    compact(log, folder / f"{number}.parquet")
    write_json(folder / f"{number}.json", {"endpoint": endpoint, "error": error})
