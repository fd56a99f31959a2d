"""A model without weights: an architecture, and a tokenizer with one word a token."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from inference_energy.errors import InputError


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
    content = json.dumps(architecture, sort_keys=True).encode() + Path(__file__).read_bytes()
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
