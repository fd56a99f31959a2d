"""Secrets in texts that a server or a device sends back: found in every usual form, and replaced.

A server that refuses a key often repeats it. What is taken in from outside goes through `Redaction` before it reaches a
message, a log or a result. `provenance.secrets` searches finished files for the same forms.
"""

import html
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

SHORTEST = 4
"""Shorter values occur by chance in any text, and protect nothing."""

PLACEHOLDERS = frozenset({"EMPTY", "NONE", "NULL", "DUMMY", "TEST"})
"""Keys for servers that want none; as words they occur in ordinary texts."""


def secret_forms(value: str) -> set[str]:
    """Return the forms in which a secret may stand in a text: plain, in JSON, in a page, in a URL."""
    in_json = {json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    in_url = {quote(value, safe="", errors="surrogateescape"), quote_plus(value, errors="surrogateescape")}
    return {value, html.escape(value), *in_json, *in_url}


class Redaction:
    """Replaces secrets in texts.

    Args:
        secrets: their values; empty and very short ones are left alone.
        name: what stands in their place, in brackets.
    """

    def __init__(self, secrets: Iterable[str | None], name: str = "API key") -> None:
        values = [value.strip() for value in secrets if value]
        hidden = [value for value in values if len(value) >= SHORTEST and value.upper() not in PLACEHOLDERS]
        # The longest first: one form may begin with another.
        self._forms = sorted({form for value in hidden for form in secret_forms(value)}, key=len, reverse=True)
        self._in_place = f"[{name}]"
        self._pattern = re.compile("|".join(map(re.escape, self._forms))) if self._forms else None

    def __call__(self, text: str) -> str:
        """Return the text without the secrets, and without the beginning of one at its end, where it was cut off."""
        if self._pattern is None:
            return text
        text = self._pattern.sub(lambda _: self._in_place, text)
        for form in self._forms:
            for length in range(min(len(form) - 1, len(text)), SHORTEST - 1, -1):
                if text.endswith(form[:length]):
                    return text[:-length] + self._in_place
        return text

    def holds(self, text: str) -> bool:
        """Return whether a secret stands in the text."""
        return self._pattern is not None and self._pattern.search(text) is not None
