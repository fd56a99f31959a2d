"""The two ways a command ends badly: the user's input is wrong, or the run failed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """A configuration key and, in advice, the value to write there. A command shows it as its option."""

    key: str
    value: object = None

    def __str__(self) -> str:
        """Return it as YAML writes it: `api: chat`; without a value the key alone."""
        if self.value is None:
            return self.key
        return f"{self.key}: {str(self.value).lower() if isinstance(self.value, bool) else self.value}"


@dataclass(frozen=True)
class Notice:
    """A problem, or a note, about one configuration key.

    Attributes:
        text: what is wrong, or what was done.
        key: the key; empty if the text names it.
        write: settings that solve the problem, each on its own.
    """

    text: str
    key: str = ""
    write: tuple[Setting, ...] = ()

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Notice":
        """Return the notice of another process, which came as JSON."""
        return cls(content["text"], content["key"], tuple(Setting(*setting) for setting in content["write"]))

    def __str__(self) -> str:
        """Return the message about the configuration."""
        return self.spelled(str)

    def spelled(self, spell: Callable[[Setting], str]) -> str:
        """Return the message with every setting as `spell` shows it."""
        head = f"{spell(Setting(self.key))}: " if self.key else ""
        advice = f"; write {', or '.join(map(spell, self.write))}" if self.write else ""
        return f"{head}{self.text}{advice}"


class InputError(Exception):
    """The input cannot be used. The message names the key or option and says what to write; exit code 2."""

    def __init__(self, text: str, *, key: str = "", write: Sequence[Setting] = ()) -> None:
        """Take the text, the key it is about, and the settings that solve the problem."""
        self.notice = Notice(text, key, tuple(write))
        super().__init__(str(self.notice))


class SettingsError(ValueError):
    """Settings of one section do not fit together; for validators of the configuration's models."""

    def __init__(self, notices: Sequence[Notice]) -> None:
        """Take the problems, a line each."""
        self.notices = tuple(notices)
        super().__init__("\n".join(map(str, self.notices)))


class RunError(Exception):
    """Something failed while running: a server that died, a file that vanished; exit code 1."""
