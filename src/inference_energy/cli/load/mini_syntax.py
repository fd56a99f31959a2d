"""Values that are typed as one word: `normal:256:64` and the like."""

from math import inf
from typing import Any

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
    """`NAME:VALUE:...` as the configuration writes it; a number alone is the same for all.

    Raises:
        InputError: no such form, or a value is no number.
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


def limits(text: str) -> dict[str, float]:
    """`ttft=0.5,tpot=0.05` as the configuration's limits.

    Raises:
        InputError: another name, twice the same, or no finite number above 0.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in LIMITS or f"{name}_s" in found or not _is_number(value) or not 0 < float(value) < inf:
            raise InputError(
                f"--limits {text}: write each of {', '.join(LIMITS)} at most once, with a time in s, such as "
                "ttft=0.5,tpot=0.05"
            )
        found[f"{name}_s"] = float(value)
    return found


def numbers(option: str, text: str, count: int, example: str) -> list[float]:
    """So many numbers with colons between them.

    Raises:
        InputError: it is something else.
    """
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
