"""The name of this machine in result paths."""

import os
import platform
import re

VARIABLE = "INFERENCE_ENERGY_MACHINE"
"""Names this machine where its host name does not, as in a container."""


def machine_name() -> str:
    """The host name, or what the variable says, with only letters, digits, `-` and `_`."""
    name = os.environ.get(VARIABLE) or platform.node()
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "unnamed"
