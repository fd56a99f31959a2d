"""The common base of sources that read a metering device, which needs settings, often a login, and to be closed."""

from typing import Generic, Protocol, TypeVar

from inference_energy.acquire.power.base import PowerSource, SourceError
from inference_energy.acquire.power.credentials import Credentials, credentials, secrets
from inference_energy.contracts.redaction import Redaction
from inference_energy.errors import InputError


class MeterSettings(Protocol):
    """The settings of a device with a login."""

    @property
    def credentials(self) -> str:
        """Prefix of the environment variables that hold the login."""

    @property
    def credentials_file(self) -> str | None:
        """The file that holds the login instead."""


SettingsT = TypeVar("SettingsT", bound=MeterSettings)


class Connection(Protocol):
    """Anything that must be closed."""

    def close(self) -> None:
        """Close it."""


class MeterSource(PowerSource, Generic[SettingsT]):
    """A source that is used only where its section of the configuration is set.

    Args:
        settings: the section; None where no device is set up.

    Attributes:
        key: of the section.
        setup_hint: what to write there.
    """

    key: str
    setup_hint: str

    def __init__(self, settings: SettingsT | None) -> None:
        self._settings = settings
        self._hidden: Redaction | None = None
        self._connections: list[Connection] = []

    @property
    def required_by_key(self) -> str | None:
        """The section's key, where a device is set up."""
        return None if self._settings is None else self.key

    def close(self) -> None:
        """Close what `channels` opened."""
        while self._connections:
            self._connections.pop().close()

    @property
    def settings(self) -> SettingsT:
        """The section.

        Raises:
            SourceError: no device is set up.
        """
        if self._settings is None:
            raise SourceError(f"{self.key} is not set: write {self.setup_hint}")
        return self._settings

    def login(self) -> Credentials | None:
        """Read the device's login; None where none is given.

        Raises:
            SourceError: no device is set up, or the login cannot be read.
        """
        try:
            login = credentials(self.settings.credentials, self.settings.credentials_file)
        except InputError as error:
            raise SourceError(f"{self.key}.{error}") from error
        if login is not None:
            self._hidden = Redaction(secrets(login), name="login")
        return login

    def hide(self, text: str) -> str:
        """Return a text of the device without the secrets of its login, in whatever form it sends them back."""
        return text if self._hidden is None else self._hidden(text)
