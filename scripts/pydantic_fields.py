"""Extension of mkdocstrings: the fields of pydantic models with description, default and bounds.

A field's meaning is in its `Field(description=...)`, where the configuration's pages, the command line's help and the
JSON schema take it from. Without this the site would show `Field(...)` calls and leave out fields without a docstring.
"""

from importlib import import_module
from typing import Any

from griffe import Class, Docstring, Extension
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


class PydanticFields(Extension):
    """Gives each field of a pydantic model its description as docstring and its default as value."""

    def on_class(self, *, cls: Class, **_: Any) -> None:
        """Describe the fields of one class, once its members are known."""
        if not any("Section" in str(base) or "BaseModel" in str(base) for base in cls.bases):
            return
        model = getattr(import_module(cls.module.path), cls.name, None)
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return
        for name, field in model.model_fields.items():
            attribute = cls.members.get(name)
            if attribute is None or not attribute.is_attribute:
                continue
            attribute.value = _default(field)
            attribute.labels.discard("class-attribute")
            attribute.labels.discard("instance-attribute")
            attribute.docstring = Docstring(_text(field), parent=attribute)


def _default(field: FieldInfo) -> str | None:
    """Return the default as Python writes it; None for a required field."""
    if field.default_factory is not None:
        return f"{getattr(field.default_factory, '__name__', 'factory')}()"
    return None if field.default is PydanticUndefined else repr(field.default)


def _text(field: FieldInfo) -> str:
    """Return the description as a sentence, and how far values may go."""
    description = field.description or ""
    text = f"{description[:1].upper()}{description[1:]}."
    bounds = [
        f"{words} {value:g}"
        for bound in field.metadata
        for name, words in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than"))
        if isinstance(value := getattr(bound, name, None), int | float)
    ]
    limits = f" Value: {', '.join(bounds)}." if bounds else ""
    return text + limits + (" Required." if field.is_required() else "")
