"""The base of every configuration section: unknown keys are refused, every field has a description."""

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from inference_energy.errors import InputError


class Section(BaseModel):
    """A section of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], key: str) -> Self:
        """Validate a dump of the model as a rule passes it: no default stands in for a missing key.

        Args:
            spec: the dump.
            key: the section that the keys are from, for messages.

        Raises:
            InputError: a key is missing, unknown or has a value that it cannot have; all such keys are named.
        """
        try:
            section = cls.model_validate(spec)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, (key, *fault['loc'])))}: {fault['msg']}" for fault in error.errors()]
        else:
            problems = [f"{key}.{path}: missing" for path in _missing_keys(section)]
        if problems:
            raise InputError("--spec: " + "; ".join(problems))
        return section


def _missing_keys(value: Any) -> Iterator[str]:
    """Yield the path of each field below a section that its default filled in."""
    if isinstance(value, Section):
        for key in type(value).model_fields:
            if key in value.model_fields_set:
                yield from (f"{key}{rest}" for rest in _prefixed(getattr(value, key)))
            else:
                yield key


def _prefixed(value: Any) -> Iterator[str]:
    yield from (f".{key}" for key in _missing_keys(value))
    if isinstance(value, Mapping):
        yield from (f".{name}{rest}" for name, item in value.items() for rest in _prefixed(item))
    elif isinstance(value, list | tuple):
        yield from (f"[{number}]{rest}" for number, item in enumerate(value) for rest in _prefixed(item))
