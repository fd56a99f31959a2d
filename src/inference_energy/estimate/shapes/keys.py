"""The keys of one model's config.json: read with a check of their values, and remembered, so that none is missed."""

from collections.abc import Callable, Mapping
from typing import Any

from inference_energy.contracts.config_keys import is_off, is_structural, keys_left, listed
from inference_energy.contracts.outside import as_count
from inference_energy.errors import InputError

MOST = 10**9
"""Largest plausible value of a key; ten times the longest context and a thousand times the widest layer."""

MOST_LAYERS = 10_000


class Keys:
    """The keys of one model's config.json, with errors that name the key.

    Args:
        name: the model's name, for messages.
        content: the content of its config.json.
        aliases: the family's own names of keys, and the usual name of each.
        defaults: values of keys that are absent, by their usual names.
    """

    def __init__(
        self,
        name: str,
        content: Mapping[str, Any],
        aliases: Mapping[str, str] | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self._spelling = {usual: own for own, usual in (aliases or {}).items() if own in content}
        renamed = {usual: content[own] for usual, own in self._spelling.items()}
        self.content = {**content, **renamed}
        for key, value in (defaults or {}).items():
            self.content.setdefault(key, value)
        self._raw = content
        self.used: set[str] = set()

    def spelled(self, key: str) -> str:
        """Return a key as the file spells it."""
        return self._spelling.get(key, key)

    def get(self, key: str) -> Any:
        """Return the value of a key, None if it is absent; the key then counts as used."""
        self.used |= {key, self.spelled(key)}
        return self.content.get(key)

    def has(self, key: str) -> bool:
        """Return whether a key is present and not off: null, false, 0 or empty."""
        return not is_off(self.get(key))

    def error(self, key: str, problem: str) -> InputError:
        """Return the error of a key, as its file spells it."""
        return InputError(f"{self.name}: config.json: {self.spelled(key)}{problem}")

    def count(self, key: str) -> int:
        """Return a required whole number above zero; a list with one such number for all layers is that number.

        Raises:
            InputError: the key is absent or not such a number.
        """
        self.require(key)
        return self._whole(key, self.get(key), 1)

    def require(self, *keys: str) -> None:
        """Raise InputError that names the keys which are absent or null."""
        absent = [self.spelled(key) for key in keys if self.get(key) is None]
        if absent:
            raise InputError(
                f"{self.name}: config.json lacks {', '.join(absent)}; is this the config.json of a decoder?"
            )

    def optional(self, *keys: str) -> int | None:
        """Return the value of the first key that is present and neither null nor 0; None if there is none."""
        found = next((key for key in keys if self.has(key)), None)
        return None if found is None else self.count(found)

    def one_of(self, *keys: str) -> int | None:
        """Return the value that keys of the same meaning state; None if none does.

        Raises:
            InputError: two of them differ.
        """
        stated = {key: self.count(key) for key in keys if self.has(key)}
        if len(set(stated.values())) > 1:
            raise InputError(
                f"{self.name}: config.json: {' and '.join(f'{key} {value}' for key, value in stated.items())} differ"
            )
        return next(iter(stated.values()), None)

    def expect(self, known: Mapping[str, tuple[Any, ...]]) -> None:
        """Mark keys as used whose values are known; an empty tuple stands for any value.

        Raises:
            InputError: a value is another one.
        """
        for key, values in known.items():
            value = self.get(key)
            if value is not None and values and value not in values:
                raise self.error(key, f" {shortened(value)} is not known here, only {values[0]}")

    def first(self, *keys: str) -> int:
        """Return the value of the first key that is present.

        Raises:
            InputError: no key is.
        """
        value = self.optional(*keys)
        return self.count(keys[0]) if value is None else value

    def index(self, key: str, default: int) -> int:
        """Return a whole number from zero; `default` if the key is absent or null."""
        value = self.get(key)
        return default if value is None else self._whole(key, value, 0)

    def flag(self, key: str, default: bool = False) -> bool:
        """Return whether a key is set; `default` if it is absent or null.

        Raises:
            InputError: the value is neither true nor false.
        """
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool) and value not in (0, 1):
            raise self.error(key, f" is {shortened(value)}; true or false is expected")
        return bool(value)

    def switch(self, feature: bool | str) -> bool:
        """Return whether a feature is there: by itself, by the key that switches it on, or off with `!` before it."""
        if isinstance(feature, bool):
            return feature
        return not self.flag(feature[1:]) if feature.startswith("!") else self.flag(feature)

    def layer_list(self, key: str, parse: Callable[[Any], Any] = lambda value: value) -> list[Any] | None:
        """Return a key's list with a value for each layer; None if the key is absent or null.

        Raises:
            InputError: no list, or not as long as the model is deep.
        """
        value = self.get(key)
        if value is None:
            return None
        layers = self.layers
        if not isinstance(value, list):
            raise self.error(key, f" is {shortened(value)}; a list with a value for each layer is expected")
        if len(value) != layers:
            raise self.error(key, f" lists {len(value)} layers, not {layers}")
        return [parse(entry) for entry in value]

    def layer_numbers(self, key: str) -> set[int] | None:
        """Return the layers that a key names, as a list or as text with commas; None if it is absent or null.

        Raises:
            InputError: an entry is no layer of the model.
        """
        value = self.get(key)
        if value is None:
            return None
        entries = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if not isinstance(entries, list | tuple):
            raise self.error(key, f" is {shortened(value)}; a list of layers is expected")
        numbers = {
            int(entry) if isinstance(entry, str) and entry.isascii() and entry.isdecimal() and len(entry) < 9 else entry
            for entry in entries
            if isinstance(entry, str | int | float)
        }
        whole = {number for entry in numbers if (number := as_count(entry)) is not None and number < self.layers}
        if len(whole) != len(entries):
            raise self.error(key, f" is {shortened(value)}; numbers of layers below {self.layers} are expected")
        return whole

    @property
    def layers(self) -> int:
        """The number of layers."""
        layers = self.count("num_hidden_layers")
        if layers > MOST_LAYERS:
            raise self.error("num_hidden_layers", f" is {layers}; no model has more than {MOST_LAYERS} layers")
        return layers

    def refuse_overlooked(self, *, is_listed: bool) -> list[str]:
        """Return the keys that were not used and say nothing of the architecture, as far as their names tell.

        Args:
            is_listed: whether the model's family is known; of an unknown one every key must be used or harmless.

        Raises:
            InputError: a key matters and was not used.
        """
        left = keys_left(self._raw, self.used)
        overlooked = [key for key in left if is_structural(key) or not is_listed]
        if overlooked:
            of_type = "" if is_listed else f" for model_type {shortened(self._raw.get('model_type'))}"
            raise InputError(
                f"{self.name}: config.json: {listed(overlooked)}: not known here{of_type}, so the model cannot be "
                "counted rightly; only full, sliding-window and latent attention, dense MLPs and experts are"
            )
        return left

    def _whole(self, key: str, value: Any, least: int) -> int:
        if isinstance(value, list) and value and len(value) == self.content.get("num_hidden_layers"):
            value = value[0] if all(entry == value[0] for entry in value) else value
        number = as_count(value)
        if number is None or not least <= number <= MOST:
            wanted = "a whole number above 0" if least else "a whole number, 0 or more,"
            raise self.error(key, f" is {shortened(value)}; {wanted} is expected")
        return number


def shortened(value: object) -> str:
    """Return a value for a message, cut to 60 characters."""
    text = repr(value) if not isinstance(value, list | dict) else repr(value)[:200]
    return text if len(text) <= 60 else f"{text[:57]}..."
