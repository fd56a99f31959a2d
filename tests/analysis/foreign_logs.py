"""Logs as other tools write them: 300 W at 10 Hz over 32 s, and 20 requests of a second each from second 5 on."""

import random
from pathlib import Path

import numpy as np
import pytest

from inference_energy.analysis.log_energy import analyze_logs
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts.documents.by_hand import LogAnalysisDocument
from inference_energy.errors import InputError

T0 = 1_700_000_000
REQUESTS = "timestamp,prompt_tokens,completion_tokens,latency\n" + "".join(
    f"{T0 + 5 + i},100,50,1.0\n" for i in range(20)
)


def flicker(level_w: float, index: int) -> float:
    return level_w + index % 5 - 2


def log_of(*rows: object, head: str = "time,power_W") -> str:
    return "\n".join([head, *map(str, rows)]) + "\n"


def one_device(level_w: float = 300.0, first_s: float = 0.0, last_s: float = 32.0, head: str = "time,power_W") -> str:
    times = np.arange(first_s, last_s + 1e-9, 0.1)
    return log_of(*(f"{T0 + at:.1f},{flicker(level_w, i):.2f}" for i, at in enumerate(times)), head=head)


class Folder:
    def __init__(self, path: Path) -> None:
        self.power, self.requests = path / "power.csv", path / "requests.csv"

    def analyze(self, power: str | bytes, requests: str | bytes = REQUESTS, **options: object) -> LogAnalysisDocument:
        for path, content in ((self.power, power), (self.requests, requests)):
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return analyze_logs(self.power, self.requests, None, AnalysisConfig(), **options)  # type: ignore[arg-type]

    def energy_j(self, power: str | bytes, requests: str | bytes = REQUESTS, **options: object) -> float:
        figure = self.analyze(power, requests, **options).figures["energy_total_j"]
        assert figure.value is not None, figure.reasons
        return figure.value

    def refusal(self, power: str | bytes, requests: str | bytes = REQUESTS, **options: object) -> str:
        with pytest.raises(InputError) as caught:
            self.analyze(power, requests, **options)
        return str(caught.value)


def rows_of_devices(name_of, devices: int = 8, stagger_s: float = 0.0125, level_w: float = 300.0) -> list[str]:
    """Rows of several devices that are asked one after the other, every 0.1 s."""
    draw = random.Random(1)
    return [
        f"{T0 + 0.1 * i + stagger_s * g + draw.gauss(0, 0.0005):.4f},{name_of(g)},{draw.gauss(level_w, 3):.2f}"
        for i in range(320)
        for g in range(devices)
    ]


def with_column(name: str, cells: list[str]) -> str:
    lines = REQUESTS.splitlines()
    return (
        "\n".join([f"{lines[0]},{name}", *(f"{line},{cell}" for line, cell in zip(lines[1:], cells, strict=True))])
        + "\n"
    )


def timed_power(text_of, head: str = "time") -> str:
    return log_of(*(f"{text_of(i)},{flicker(300, i)}" for i in range(320)), head=f"{head},power_W")


def timed_requests(text_of, head: str = "timestamp") -> str:
    head = f"{head},prompt_tokens,completion_tokens,latency"
    return log_of(*(f"{text_of(i)},100,50,1.0" for i in range(20)), head=head)


def iso(seconds: float, form: str) -> str:
    stamp = np.datetime64(round((T0 + seconds) * 1000), "ms").astype("datetime64[ms]").item()
    return stamp.strftime(form)[:-3] if form.endswith("%f") else stamp.strftime(form)
