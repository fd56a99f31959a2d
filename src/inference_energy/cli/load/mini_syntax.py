"""Values that are typed as one word, such as `normal:256:64`."""

from math import inf
from typing import Any

from inference_energy.contracts.outside import decode_json
from inference_energy.errors import InputError

Forms = dict[str, tuple[str, ...]]

LENGTHS: Forms = {
    "normal": ("mean", "std", "minimum", "maximum"),
    "lognormal": ("mean", "std", "minimum", "maximum"),
    "uniform": ("minimum", "maximum"),
    "fixed": ("tokens",),
    "empirical": ("path", "column"),
}
TIMES: Forms = {
    "fixed": ("time_s",),
    "exponential": ("mean_s",),
    "lognormal": ("mean_s", "std_s"),
    "uniform": ("minimum_s", "maximum_s"),
}
TURNS: Forms = {"fixed": ("turns",), "uniform": ("minimum", "maximum"), "geometric": ("mean", "maximum")}
TEXTS = ("path", "column")
LIMITS = ("ttft", "tpot", "itl", "e2e")


def distribution(option: str, text: str, forms: Forms) -> dict[str, Any]:
    """Return `NAME:VALUE:...` as the configuration writes it; a number alone is the distribution `fixed`.

    Raises:
        InputError: the form is unknown, or a value is not a number.
    """
    name, *values = text.split(":")
    if not values and _is_number(name):
        name, values = "fixed", [name]
    if name not in forms or not 1 <= len(values) <= len(forms[name]):
        spellings = ", ".join(":".join((form, *keys)) for form, keys in forms.items())
        raise InputError(f"{option} {text}: write a number, or one of {spellings}; the last ones can be left out")
    for key, value in zip(forms[name], values, strict=False):
        if key not in TEXTS and not _is_number(value):
            raise InputError(f"{option} {text}: {key}: a number is expected, got {value!r}")
    return {"distribution": name, **dict(zip(forms[name], values, strict=False))}


def limits(option: str, text: str) -> dict[str, float]:
    """Return `ttft=0.5,tpot=0.05` as the configuration's limits.

    Raises:
        InputError: a name is unknown or repeated, or a value is not a finite number above 0.
    """
    seconds: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in LIMITS or f"{name}_s" in seconds or not _is_number(value) or not 0 < float(value) < inf:
            raise InputError(
                f"{option} {text}: write each of {', '.join(LIMITS)} at most once, with a time in s, such as "
                "ttft=0.5,tpot=0.05"
            )
        seconds[f"{name}_s"] = float(value)
    return seconds


def rate(text: str, process: str) -> dict[str, Any]:
    """Return `--qps` as the keys of an arrival process.

    Raises:
        InputError: the process wants another form.
    """
    if process == "ramp":
        start, end = _numbers("--qps", text, 2, "FROM:TO for a ramp, such as 1:64")
        return {"from_qps": start, "to_qps": end}
    if process == "piecewise":
        steps = [_numbers("--qps", step, 2, "RATE:SECONDS,RATE:SECONDS for steps") for step in text.split(",")]
        return {"steps": [{"rate_qps": step_rate, "duration_s": duration_s} for step_rate, duration_s in steps]}
    (mean,) = _numbers("--qps", text, 1, "one rate in requests/s, such as 64; FROM:TO is for --arrival ramp")
    return {"mean_qps" if process == "day" else "rate_qps": mean}


def prefix(option: str, text: str) -> dict[str, float]:
    """Return `GROUPS:TOKENS[:SHARE]` as the configuration's shared prefix.

    Raises:
        InputError: it has another form.
    """
    count = 3 if text.count(":") == 2 else 2
    values = _numbers(option, text, count, "GROUPS:TOKENS or GROUPS:TOKENS:SHARE, such as 8:1024")
    return dict(zip(("groups", "tokens", "share"), values, strict=False))


def json_object(option: str, text: str) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        InputError: it is something else.
    """
    try:
        content = decode_json(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f'{option}: write a JSON object, such as {{"temperature": 0}}')
    return content


def _numbers(option: str, text: str, count: int, example: str) -> list[float]:
    parts = text.split(":")
    if len(parts) != count or not all(map(_is_number, parts)):
        raise InputError(f"{option} {text}: write {example}")
    return [float(part) for part in parts]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
