"""A cluster's GPUs as a DCGM exporter's page and as a Prometheus server show them."""

import json
import re
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fake_http import Request, Response

A, B = "GPU-aaaa1111-0000", "GPU-bbbb2222-0000"
HELP = {
    "DCGM_FI_DEV_POWER_USAGE": ("gauge", "Power draw (in W)."),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": ("counter", "Total energy consumption since boot (in mJ)."),
}


class Cluster:
    """GPUs with their fields, shown as the exporter or as a Prometheus server does."""

    def __init__(self, model: str = "NVIDIA H100 80GB HBM3") -> None:
        self.model = model
        self.gpus: dict[str, dict[str, float]] = {}
        for uuid, power_w in ((A, 412.5), (B, 71.25)):
            self.gpus[uuid] = {
                "POWER_USAGE": power_w,
                "TOTAL_ENERGY_CONSUMPTION": power_w * 1e6,
                "GPU_UTIL": 95,
                "FB_USED": 1024,
                "SM_CLOCK": 1980,
                "GPU_TEMP": 51,
                "CLOCK_THROTTLE_REASONS": 4,
            }
        self.moving = True
        self.extra = ""
        self.token: str | None = None
        self.fresh_until_s: float | None = None
        self.epoch_s = 1_700_000_000.0 - time.monotonic()
        self.scrape_s = 0.1
        self.queries: list[str] = []

    def labels(self, index: int, uuid: str) -> dict[str, str]:
        return {
            "gpu": str(index),
            "UUID": uuid,
            "device": f"nvidia{index}",
            "modelName": self.model,
            "Hostname": "node-a" if uuid == A else "node-b",
        }

    def step(self) -> None:
        if self.moving:
            for fields in self.gpus.values():
                if "TOTAL_ENERGY_CONSUMPTION" in fields:
                    fields["TOTAL_ENERGY_CONSUMPTION"] += 1000
                elif "POWER_USAGE" in fields:
                    fields["POWER_USAGE"] += 0.001

    def __call__(self, request: Request) -> Response:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return Response("Unauthorized", 401)
        parts = urlsplit(request.path)
        if parts.path == "/metrics":
            self.step()
            return Response(self.page())
        if parts.path != "/prom/api/v1/query":
            return Response("not found", 404)
        (query,) = parse_qs(parts.query)["query"]
        self.queries.append(query)
        now_s = time.monotonic() + self.epoch_s
        if query == "time()":
            return Response({"status": "success", "data": {"resultType": "scalar", "result": [now_s, str(now_s)]}})
        self.step()
        return Response({"status": "success", "data": {"resultType": "matrix", "result": self.series(query, now_s)}})

    def page(self) -> str:
        lines = []
        for name in sorted({name for fields in self.gpus.values() for name in fields}):
            kind, text = HELP.get(f"DCGM_FI_DEV_{name}", ("gauge", name))
            lines += [f"# HELP DCGM_FI_DEV_{name} {text}", f"# TYPE DCGM_FI_DEV_{name} {kind}"]
            for index, (uuid, fields) in enumerate(self.gpus.items()):
                if name in fields:
                    labels = ",".join(f'{key}="{value}"' for key, value in self.labels(index, uuid).items())
                    lines.append(f"DCGM_FI_DEV_{name}{{{labels}}} {fields[name]:f}")
        return self.extra + "\n".join(lines) + "\n" + self.extra

    def series(self, query: str, now_s: float) -> list[Any]:
        selector = re.fullmatch(r'\{__name__=~"([^"]*)"(.*)\}\[(\d+)ms\]', query)
        assert selector, query
        names, matchers, window_ms = selector[1].split("|"), selector[2], int(selector[3])
        newest_s = self.fresh_until_s or now_s - now_s % self.scrape_s
        times_s = [at_s for at_s in (newest_s - self.scrape_s, newest_s) if at_s >= now_s - window_ms / 1e3]
        result = []
        for index, (uuid, fields) in enumerate(self.gpus.items()):
            labels = self.labels(index, uuid)
            wanted = re.findall(r'(\w+)(=~?)("(?:[^"\\]|\\.)*")', matchers)
            if not all(
                re.fullmatch(json.loads(text), labels[key]) if how == "=~" else labels[key] == json.loads(text)
                for key, how, text in wanted
            ):
                continue
            for name, value in fields.items():
                if times_s and f"DCGM_FI_DEV_{name}" in names:
                    metric = {"__name__": f"DCGM_FI_DEV_{name}", "job": "dcgm", **labels}
                    values = [[at_s, str(0.5 if at_s < newest_s else value)] for at_s in times_s]
                    result.append({"metric": metric, "values": values})
        return result
