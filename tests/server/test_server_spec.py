"""The command line of a server."""

from pathlib import Path

import pytest

from inference_energy.acquire.server.settings import LaunchSpec, command
from inference_energy.errors import InputError

FIELDS = {
    "model": "owner/model",
    "served_model_name": "m",
    "port": 8123,
    "log_path": Path("server.log"),
    "status_path": Path("server.json"),
}


def arguments_of(**arguments: object) -> list[str]:
    words = command(LaunchSpec(**FIELDS, interpreter=Path("/env/bin/python"), arguments=arguments))
    return words[words.index("8123") + 1 :]


def test_whole_command() -> None:
    spec = LaunchSpec(**FIELDS, interpreter=Path("/env/bin/python"), revision="main", arguments={"dtype": "float32"})
    assert command(spec) == [
        "/env/bin/python",
        *("-m", "vllm.entrypoints.openai.api_server"),
        *("--model", "owner/model", "--served-model-name", "m", "--host", "127.0.0.1", "--port", "8123"),
        *("--revision", "main", "--dtype", "float32"),
    ]


def test_container_and_script() -> None:
    assert command(LaunchSpec(**FIELDS, container_command=("run", "image", "python3")))[:4] == [
        *("run", "image", "python3", "-m"),
    ]
    script = LaunchSpec(**FIELDS, interpreter=Path("python3"), script=Path("stub.py"))
    assert command(script)[:3] == ["python3", "stub.py", "--model"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("enforce-eager", True, ["--enforce-eager"]),
        ("enable-prefix-caching", False, ["--no-enable-prefix-caching"]),
        ("seed", None, []),
        ("max_model_len", 2048, ["--max-model-len", "2048"]),
        ("gpu-memory-utilization", 0.9, ["--gpu-memory-utilization", "0.9"]),
        ("middleware", ["a", "b"], ["--middleware", "a", "b"]),
        ("speculative-config", {"k": 1, "on": True}, ["--speculative-config", '{"k": 1, "on": true}']),
        ("compilation-config.use_inductor", 1, ["--compilation-config.use_inductor", "1"]),
        ("offset", -1, ["--offset=-1"]),
    ],
)
def test_forms_of_arguments(name: str, value: object, words: list[str]) -> None:
    assert arguments_of(**{name: value}) == words


@pytest.mark.parametrize(("name", "key"), [("port", "server.port"), ("served_model_name", "model.name")])
def test_arguments_with_a_key_of_their_own_are_refused(name: str, key: str) -> None:
    with pytest.raises(InputError, match=rf"server\.arguments\.{name}: write it as {key}"):
        arguments_of(**{name: "x"})


def test_a_dash_too_many_is_refused() -> None:
    with pytest.raises(InputError, match="without the dashes"):
        arguments_of(**{"--dtype": "float32"})


@pytest.mark.parametrize("how", [{}, {"interpreter": Path("python3"), "container_command": ("run",)}])
def test_one_way_to_run_it(how: dict) -> None:
    with pytest.raises(InputError, match=r"either an interpreter .* or a container_command"):
        LaunchSpec(**FIELDS, **how)
