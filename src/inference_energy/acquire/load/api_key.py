"""Where the API key is: in an environment variable, whose name is all that specifications, logs and results hold."""

import os

from inference_energy.errors import InputError

USUAL = "OPENAI_API_KEY"


def api_key_env(named: str | None, *, attached: bool, setting: str = "client.api_key_env") -> str | None:
    """The environment variable that holds the API key; None if there is no key to send.

    Args:
        named: what the user named.
        attached: a server that is not ours may want the usual key; one that we launch has none.
        setting: what the user calls that setting.

    Raises:
        InputError: the named variable is not set.
    """
    if named is None:
        return USUAL if attached and os.environ.get(USUAL) else None
    if not os.environ.get(named):
        raise InputError(f"{setting}: the environment variable {named} is not set; export it with the key")
    return named
