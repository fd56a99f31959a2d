"""The base of every configuration section: unknown keys are refused, every field has a description."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from inference_energy.contracts.outside import clean_text
from inference_energy.errors import Notice, SettingsError

MOST_SECONDS = 31_536_000
"""The longest duration [s]: a year. A longer one is a mistake, and does not fit into nanoseconds."""

LARGEST_NUMBER = 10.0**300
"""Larger whole numbers have no place among floating-point numbers."""


class Section(BaseModel):
    """A section of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, content: Any) -> Any:
        """Refuse true and false for numbers, which pydantic takes for 1 and 0, and numbers without a size."""
        if isinstance(content, Mapping):
            for key, info in cls.model_fields.items():
                value, kinds = content.get(key), _kinds(info.annotation)
                if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
                    raise SettingsError([Notice(f"write a number, not {str(value).lower()}", key)])
                if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
                    raise SettingsError([Notice("this number is too large", key)])
        return content

    @field_validator("*", mode="after")
    @classmethod
    def _can_be_encoded(cls, value: Any) -> Any:
        """Refuse half a surrogate pair, which neither a request nor a file can hold."""
        if not isinstance(value, BaseModel) and not _is_clean(value):
            raise ValueError("holds half a character (a lone surrogate, or a byte that is not UTF-8); write it whole")
        return value


def _is_clean(value: Any) -> bool:
    if isinstance(value, str):
        return clean_text(value) == value
    if isinstance(value, Mapping):
        return all(_is_clean(key) and _is_clean(item) for key, item in value.items())
    return not isinstance(value, list | tuple) or all(map(_is_clean, value))


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that a value may have: those of a union, or the type itself."""
    return {annotation}.union(*(_kinds(argument) for argument in get_args(annotation) if isinstance(argument, type)))
