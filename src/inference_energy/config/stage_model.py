"""The models that stages read: parts of the configuration, passed as a dump that holds every key."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from inference_energy.config.base import Section
from inference_energy.errors import InputError

S = TypeVar("S", bound=Section)


def part_of(model: type[S], section: Section) -> S:
    """Return a model with the values that a section has for its fields; the section may have further ones."""
    return model.model_validate(
        {name: _part(field.annotation, getattr(section, name)) for name, field in model.model_fields.items()}
    )


def read_dump(model: type[S], dump: Mapping[str, Any], key: str) -> S:
    """Validate a dump of a model as a rule passes it: no default stands in for a missing key.

    Args:
        model: what the stage reads.
        dump: the dump.
        key: the section that the keys are from, for messages.

    Raises:
        InputError: a key is missing, unknown or has a value that it cannot have; all such keys are named.
    """
    try:
        section = model.model_validate(dump)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, (key, *fault['loc'])))}: {fault['msg']}" for fault in error.errors()]
    else:
        problems = [f"{key}.{path}: missing" for path in _missing_keys(section)]
    if problems:
        raise InputError("--spec: " + "; ".join(problems))
    return section


def _part(annotation: Any, value: Any) -> Any:
    narrower = isinstance(annotation, type) and issubclass(annotation, Section) and isinstance(value, Section)
    return part_of(annotation, value) if narrower else value


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
