"""Converts a GGUF file to a folder with safetensors, config and tokenizer.

Runs as a program in the interpreter that has vLLM: `python convert_gguf.py FILE FOLDER LICENSE`. It imports nothing
of this project. transformers' GGUF loader makes the weights float32; `save_pretrained` refuses a model that came
from GGUF, so the state dict is saved by itself.
"""

import json
import sys
from pathlib import Path

ORIGIN = "origin.json"


def main(source: Path, target: Path, stated_license: str) -> None:
    """Convert one file; ends the program with a message if the licence is not the stated one."""
    import gguf
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    fields = gguf.GGUFReader(source).fields
    general = {key: field.contents() for key, field in fields.items() if key.startswith("general.")}
    license_name = str(general.get("general.license", ""))
    if license_name.lower() != stated_license.lower():
        sys.exit(f"{source.name} states the licence {license_name!r}; the configuration states {stated_license!r}")
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    target.mkdir(parents=True)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    config = {key: value for key, value in model.config.to_dict().items() if not key.startswith("_")}
    config.pop("quantization_config", None)
    config["architectures"] = [type(model).__name__]
    if config.get("tie_word_embeddings"):
        weights.pop("lm_head.weight", None)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n")
    tokenizer.save_pretrained(target)
    origin = {"file": source.name, "license": license_name, "general": general}
    (target / ORIGIN).write_text(json.dumps(origin, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
