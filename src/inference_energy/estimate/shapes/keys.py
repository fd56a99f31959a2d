"""Reading numbers of a config.json, with errors that name the key."""

from collections.abc import Mapping
from typing import Any

from inference_energy.errors import InputError


class Keys:
    """The keys of one model's config.json.

    Args:
        name: of the model, for messages.
        content: of the config.json.
    """

    def __init__(self, name: str, content: Mapping[str, Any]) -> None:
        self.name = name
        self.content = content

    def count(self, key: str) -> int:
        """A number above zero that must be there.

        Raises:
            InputError: it is absent or not such a number.
        """
        value = self.content.get(key)
        if value is None:
            raise InputError(f"{self.name}: config.json lacks {key}; is this the config.json of a decoder?")
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise InputError(f"{self.name}: config.json: {key} is {value!r}; a whole number above 0 is expected")
        return value

    def optional(self, *keys: str) -> int | None:
        """The first of these that is there and not null or 0."""
        for key in keys:
            if self.content.get(key):
                return self.count(key)
        return None

    def first(self, *keys: str) -> int:
        """The first of these that is there.

        Raises:
            InputError: none is.
        """
        found = self.optional(*keys)
        return self.count(keys[0]) if found is None else found

    def flag(self, key: str, default: bool = False) -> bool:
        """A yes or no."""
        return bool(self.content.get(key, default))
