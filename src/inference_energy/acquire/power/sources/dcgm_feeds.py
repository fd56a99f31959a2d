"""The two feeds of DCGM's values: the exporter's page, or a Prometheus server that scrapes it.

Field names and units: NVIDIA DCGM documentation, "Field Identifiers" and "DCGM Exporter Metrics". Power in W, energy in
mJ, clocks in MHz, memory in MiB, utilisation in percent. A field without a value is "blank", a number near the type's
largest.
"""

import json
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from prometheus_client.parser import text_string_to_metric_families
from requests.auth import HTTPBasicAuth

from inference_energy.acquire.power.base import SourceError, timed
from inference_energy.acquire.power.credentials import Credentials, plain
from inference_energy.acquire.power.sources.http import HttpClient
from inference_energy.config.power import DcgmSettings

STALE_PERIODS = 3

POWER = "DCGM_FI_DEV_POWER_USAGE"
INSTANT = "DCGM_FI_DEV_POWER_USAGE_INSTANT"
ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
UTILIZATION = "DCGM_FI_DEV_GPU_UTIL"
MEMORY_USED = "DCGM_FI_DEV_FB_USED"
SM_CLOCK = "DCGM_FI_DEV_SM_CLOCK"
TEMPERATURE = "DCGM_FI_DEV_GPU_TEMP"
REASONS = ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS")
LIMITS = ("DCGM_FI_DEV_POWER_MGMT_LIMIT_MAX", "DCGM_FI_DEV_POWER_MGMT_LIMIT_DEF", "DCGM_FI_DEV_POWER_MGMT_LIMIT")
FIELDS = (POWER, INSTANT, ENERGY, UTILIZATION, MEMORY_USED, SM_CLOCK, TEMPERATURE, *REASONS, *LIMITS)

_BLANK_INT64 = 0x7FFFFFFFFFFFFFF0
_BLANK_FP64 = 1 << 47
_BLANK_INT32 = 0x7FFFFFF0
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@dataclass(frozen=True, slots=True)
class GpuValues:
    """The fields of one GPU in a snapshot, and the time of the sample itself, if the feed gives it."""

    labels: Mapping[str, str]
    fields: Mapping[str, float]
    sample_ns: int | None = None
    sample_unix_us: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All GPUs by UUID at one moment of the monotonic clock, and the time that reading them took."""

    gpus: Mapping[str, GpuValues]
    timestamp_ns: int
    latency_us: float


class Feed(ABC):
    """Snapshots for the channels of all GPUs: calls within half a period of the last one share its snapshot.

    Args:
        settings: the address and labels.
        login: the credentials; None if the feed needs none.
        uuids: the UUIDs that are needed, or their first characters; empty for all.
    """

    def __init__(self, settings: DcgmSettings, login: Credentials | None, uuids: Sequence[str] = ()) -> None:
        parts = urlsplit(settings.url)
        self._path = parts.path.rstrip("/")
        self._period_s = settings.period_s
        self._labels = settings.labels
        self._uuids = uuids
        user, password = (plain(login.username), plain(login.password)) if login else (None, None)
        token = plain(login.token) if login else None
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        basic = HTTPBasicAuth(user.encode(), password.encode()) if user and password and not token else None
        base = f"{parts.scheme}://{parts.netloc}"
        self._client = HttpClient(base, basic, settings.verify, verify_key="power.dcgm.verify")
        self._lock = threading.Lock()
        self._last: Snapshot | str = ""
        self._last_s: float | None = None

    def snapshot(self) -> Snapshot:
        """Return the last snapshot if it is recent, else a new one.

        Raises:
            SourceError: there is no answer, or it cannot be read.
        """
        with self._lock:
            if self._last_s is None or time.monotonic() - self._last_s > self._period_s / 2:
                try:
                    self._last = self._fetch()
                except SourceError as error:
                    self._last = str(error)
                self._last_s = time.monotonic()
            last = self._last
        if isinstance(last, str):
            raise SourceError(last)
        return last

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @abstractmethod
    def _fetch(self) -> Snapshot: ...


class ExporterFeed(Feed):
    """The exporter's own page, in Prometheus' text format. It does not say how old its values are."""

    def _fetch(self) -> Snapshot:
        path = self._path or "/metrics"
        body, timestamp_ns, latency_us = timed(lambda: self._client.get(path, self._headers))
        text = body.decode(errors="replace")
        address = self._client.address(path)
        if not text.endswith("\n"):
            # The text format ends with a line feed; without it the last number may lack digits.
            raise SourceError(f"{address}: the page is empty or cut off")
        samples = None
        # Raised outside: the exception would carry the page.
        with suppress(Exception):
            samples = [
                (sample.name.removesuffix("_total"), sample.labels, float(sample.value), 0.0)
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            ]
        if samples is None:
            raise SourceError(f"{address} is not in Prometheus' text format")
        return Snapshot(by_gpu(samples, self._labels), timestamp_ns, latency_us)


class PrometheusFeed(Feed):
    """Raw samples by /api/v1/query with a range selector, whose times are those of the scrapes.

    The server's `time()` relates them to this machine's monotonic clock, so neither wall clock matters; the error is
    half the duration of that request. Source: Prometheus documentation, "HTTP API" and "Querying basics".
    """

    def _fetch(self) -> Snapshot:
        server_s, server_ns, _ = timed(lambda: self._query("time()"))
        window_ms = int(self._period_s * STALE_PERIODS * 1000)
        selector = f"{{{','.join(self._matchers())}}}[{window_ms}ms]"
        series, timestamp_ns, latency_us = timed(lambda: self._query(selector))
        address = self._client.address(self._path)
        dated = None
        # Raised outside: the exception would carry the answer.
        with suppress(TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError):
            epoch_s = float(server_s[1])
            newest = [(entry["metric"], entry["values"][-1]) for entry in series]
            samples = [
                (labels["__name__"], labels, float(value), float(sampled_s)) for labels, (sampled_s, value) in newest
            ]
            dated = {
                uuid: GpuValues(
                    values.labels,
                    values.fields,
                    server_ns - round((epoch_s - (values.sample_unix_us or 0) / 1e6) * 1e9),
                    values.sample_unix_us,
                )
                for uuid, values in by_gpu(samples, self._labels).items()
            }
        if dated is None:
            raise SourceError(f"{address} does not answer as a Prometheus server does")
        return Snapshot(dated, timestamp_ns, latency_us)

    def _matchers(self) -> list[str]:
        matchers = [f'__name__=~"{"|".join(FIELDS)}"']
        if self._uuids:
            uuids = "|".join(re.escape(uuid) + ".*" for uuid in self._uuids)
            matchers.append(f"UUID=~{_quoted(uuids)}")
        for label, value in sorted(self._labels.items()):
            if not _LABEL.fullmatch(label):
                raise SourceError(f"power.dcgm.labels holds {label!r}, which is no name of a label")
            matchers.append(f"{label}={_quoted(value)}")
        return matchers

    def _query(self, expression: str) -> list[Any]:
        path = f"{self._path}/api/v1/query"
        answer = self._client.json(f"{path}?{urlencode({'query': expression})}", self._headers)
        data = answer.get("data")
        result = data.get("result") if isinstance(data, dict) else None
        if answer.get("status") != "success" or not isinstance(result, list):
            raise SourceError(f"{self._client.address(path)} does not answer as a Prometheus server does")
        return result


def by_gpu(
    samples: Iterable[tuple[str, Mapping[str, str], float, float]], required_labels: Mapping[str, str]
) -> dict[str, GpuValues]:
    """Group samples by the GPU's UUID.

    A GPU's power appears once for each of its MIG slices, or for each pod: the newest sample counts and, within one
    scrape, the board's own. Only the fields from a GPU's newest scrape are used.

    Args:
        samples: (name, labels, value, unix time of the sample in s or 0).
        required_labels: labels that must match.
    """
    best: dict[str, dict[str, tuple[tuple[float, bool], float, Mapping[str, str]]]] = {}
    for name, labels, value, sampled_s in samples:
        uuid = labels.get("UUID")
        if name not in FIELDS or not uuid or _is_blank(name, value):
            continue
        if any(labels.get(label) != text for label, text in required_labels.items()):
            continue
        rank = (sampled_s, not labels.get("GPU_I_ID"))
        by_name = best.setdefault(uuid, {})
        if name not in by_name or rank > by_name[name][0]:
            by_name[name] = (rank, value, labels)
    gpus: dict[str, GpuValues] = {}
    for uuid, by_name in best.items():
        newest_s = max(rank[0] for rank, _, _ in by_name.values())
        fields = {name: value for name, (rank, value, _) in by_name.items() if rank[0] == newest_s}
        labels = next(labels for rank, _, labels in by_name.values() if rank[0] == newest_s)
        gpus[uuid] = GpuValues(labels, fields, None, round(newest_s * 1e6) or None)
    return gpus


def _quoted(text: str) -> str:
    """Return the text as a string literal of PromQL, which has the escapes of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _is_blank(name: str, value: float) -> bool:
    if not -_BLANK_INT64 < value < _BLANK_INT64:
        return True
    return name != ENERGY and (_BLANK_FP64 <= value < _BLANK_FP64 + 16 or _BLANK_INT32 <= value < _BLANK_INT32 + 16)
