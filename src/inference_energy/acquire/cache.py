"""Where environments and converted models are kept: large, rebuilt at need, never part of the results."""

import os
from pathlib import Path

VARIABLE = "INFERENCE_ENERGY_CACHE"


def cache_folder(kind: str) -> Path:
    """The folder for one kind of thing: below `.cache` in the working directory, or where the variable says."""
    return Path(os.environ.get(VARIABLE, ".cache")) / kind
