"""Models whose config.json facts are shipped (data/models.json), each with the page they are from."""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from inference_energy.errors import InputError
from inference_energy.estimate.shapes.read import shape_from_config, shape_from_file
from inference_energy.estimate.shapes.shape import ModelShape


@cache
def models() -> dict[str, dict[str, Any]]:
    """The entries by name: `repository`, `source`, `published`, `aliases`, `config`."""
    text = files("inference_energy.estimate").joinpath("data/models.json").read_text()
    found: dict[str, dict[str, Any]] = json.loads(text)["models"]
    return found


def shape_of(model: str, precision: str | None = None, kv_precision: str | None = None) -> ModelShape:
    """The shape of a shipped model by name, alias or repository, or of a config.json by its path.

    Raises:
        InputError: there is neither such a model nor such a file, or its shape cannot be read.
    """
    wanted = model.lower()
    for name, entry in models().items():
        names = (name, entry["repository"], entry["repository"].split("/")[-1], *entry["aliases"])
        if wanted in (one.lower() for one in names):
            return shape_from_config(entry["config"], name, precision, kv_precision)
    path = Path(model).expanduser()
    if path.exists():
        return shape_from_file(path, None, precision, kv_precision)
    raise InputError(
        f"--model-config {model}: neither a file nor a model that is shipped; give the path of a config.json, or one "
        f"of: {', '.join(models())}"
    )
