"""The page /metrics (Prometheus text) read again and again: what was parsed once is only looked up.

A page of vLLM has some hundred lines, most of them buckets, and a line's name and labels are the same on every page. So
prometheus_client parses a line when it is new; from then on its text up to the value is a key.
"""

import json
import re
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from inference_energy.contracts.engines import ENGINES
from inference_energy.contracts.server_metrics import ON_CHANGE

# Name and labels, then the value: labels may hold spaces, a value has none.
_LINES = re.compile(
    rb"^((?:%s).*) (\S+)$" % b"|".join(re.escape(engine.prefix.encode()) for engine in ENGINES), re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Series:
    """One sample's name, and its labels as JSON with sorted keys, without `model_name`."""

    name: str
    labels: str


class PageReader:
    """Reads pages of one server.

    Attributes:
        series: all that was ever seen, in the order in which it was.
    """

    def __init__(self) -> None:
        self.series: list[Series] = []
        self._known: dict[Series, int] = {}
        self._of_line: dict[bytes, int] = {}
        self._only_changes: list[bool] = []
        self._texts: list[bytes] = []

    def read(self, page: bytes) -> tuple[list[int], list[float]]:
        """The engine's samples of a page, in its order.

        Returns:
            Positions in `series`, and values. Samples that need a row only when they changed
            (`contracts.server_metrics`) are there if they did since the page before.

        Raises:
            ValueError: a line is no Prometheus text.
        """
        numbers: list[int] = []
        values: list[float] = []
        of_line, texts, only_changes = self._of_line, self._texts, self._only_changes
        for line, text in _LINES.findall(page):
            number = of_line.get(line)
            if number is None:
                number, value = self._learn(line, text)
            elif only_changes[number] and texts[number] == text:
                continue
            else:
                value = float(text)
            texts[number] = text
            numbers.append(number)
            values.append(value)
        return numbers, values

    def _learn(self, line: bytes, text: bytes) -> tuple[int, float]:
        """The number of a line that was not seen before, and its value."""
        (family,) = text_string_to_metric_families((line + b" " + text + b"\n").decode())
        (sample,) = family.samples
        labels = {key: value for key, value in sample.labels.items() if key != "model_name"}
        series = Series(sample.name, json.dumps(labels, sort_keys=True))
        number = self._known.setdefault(series, len(self.series))
        if number == len(self.series):
            self.series.append(series)
            self._only_changes.append(series.name.endswith(ON_CHANGE))
            self._texts.append(b"")
        if sample.timestamp is None:
            # With a time behind the value, what precedes the last space is another text on each page.
            self._of_line[line] = number
        return number, float(sample.value)
