"""Everything that a power source lets out, as one text to look for secrets in."""

import json
import traceback
from pathlib import Path

from inference_energy.acquire.power.base import PowerSource, SensorChannel, SourceError
from inference_energy.acquire.power.power_log import compact_power_log
from inference_energy.acquire.power.sampler import Sampler, stats_path
from inference_energy.acquire.power.settings import SamplerSpec
from inference_energy.errors import RunError


def chain(error: BaseException) -> str:
    """An exception with all that hang on it, suppressed ones too."""
    texts: list[str] = []
    left: list[BaseException] = [error]
    seen: set[int] = set()
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        texts += [repr(one), str(one), repr(vars(one)), *traceback.format_exception(one)]
        left += [other for other in (one.__cause__, one.__context__) if other is not None]
    return "\n".join(texts)


def error_of(channel: SensorChannel) -> str:
    """The exception that a read raises, and nothing where it raises none."""
    try:
        channel.read()
    except SourceError as error:
        return chain(error)
    return ""


def errors_of(source: PowerSource) -> str:
    """The exceptions that opening and reading raise."""
    texts = []
    try:
        texts += [error_of(channel) for channel in source.channels()]
    except SourceError as error:
        texts.append(chain(error))
    finally:
        source.close()
    return "\n".join(texts)


def run_of(source: PowerSource, folder: Path, duration_s: float = 0.4) -> str:
    """A short run of the sampler: its log, its counts and its file, or why it failed."""
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "power.arrows"
    try:
        counts = Sampler(SamplerSpec.parse({"duration_s": duration_s}), [source], output).run()
    except RunError as error:
        return chain(error)
    compact_power_log(output, folder / "power.parquet")
    log = output.read_bytes() + (folder / "power.parquet").read_bytes()
    return json.dumps(counts) + stats_path(output).read_text() + log.decode("latin-1")


def said(source: PowerSource) -> str:
    """What it says of itself."""
    return f"{source.probe()} {json.dumps(source.describe())} {source!r} {vars(source)} {source.name} {source.grade}"
