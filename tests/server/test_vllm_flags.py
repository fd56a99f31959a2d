"""Flags that a vLLM does not know are found before it is started."""

import json
import re
import sys
from importlib import resources
from pathlib import Path

import pytest

from inference_energy.acquire.vllm_flags import LOCKED, SHIPPED, check_arguments, flags_of, known_flags
from inference_energy.config.loader import read_merged
from inference_energy.config.servers import LaunchServer
from inference_energy.errors import InputError

ROOT = Path(__file__).parents[2]
SOURCE = """
@dataclass
class BaseFrontendArgs:
    enable_auto_tool_choice: bool = False
def add(parser, group):
    group.add_argument("--max-model-len", "-len", **kwargs)
    parser.add_argument(f"--{name}")
    parser.add_argument("positional")
"""


def environment(kind: str, interpreter: str | None = None) -> dict[str, str | None]:
    return {"environment": kind, "interpreter": interpreter}


@pytest.mark.parametrize(("kind", "package"), LOCKED.items())
def test_the_shipped_flags_are_those_of_the_locked_version(kind: str, package: str) -> None:
    locked = re.search(rf"^{package}==(\S+)", (ROOT / "envs" / kind / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    content = json.loads(resources.files("inference_energy.acquire").joinpath(SHIPPED).read_text())
    assert content[package]["version"] == locked[1], "run scripts/vllm_flags.py"
    assert len(content[package]["flags"]) > 200


@pytest.mark.parametrize("path", ["config.yaml", *(f"config/{path.name}" for path in (ROOT / "config").glob("*.yaml"))])
@pytest.mark.parametrize("kind", LOCKED)
def test_the_shipped_configurations_have_known_flags(path: str, kind: str) -> None:
    known = known_flags(environment(kind))
    assert known is not None
    config = read_merged(list(dict.fromkeys([ROOT / "config.yaml", ROOT / path])), quiet=True)
    for name, server in config.servers.items():
        assert isinstance(server, LaunchServer)
        check_arguments(name, server.arguments | server.arguments_on_cpu | server.arguments_on_gpu, known)


def test_an_unknown_flag_is_named_with_its_neighbor_and_the_version() -> None:
    known = known_flags(environment("cpu"))
    assert known is not None
    check_arguments("x", {"max_num_seqs": 3, "compilation-config.level": 3, "no-enable-prefix-caching": True}, known)
    with pytest.raises(InputError) as caught:
        check_arguments("x", {"max-num-seq": 3, "dtype": "float32", "colour": "blue", "speculativ-config.k": 1}, known)
    first, second, third = str(caught.value).splitlines()
    assert first == f"servers.x.arguments.max-num-seq: vLLM {known.version} has no flag --max-num-seq; " + (
        "did you mean max-num-seqs?"
    )
    assert "colour" in second
    assert "speculative-config" in third


def test_flags_are_read_from_source_and_a_stand_in_has_none(tmp_path: Path) -> None:
    for name in ("engine/arg_utils.py", "entrypoints/openai/cli_args.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(SOURCE if "cli" in name else SOURCE.replace("max-model-len", "dtype"))
    assert flags_of(tmp_path) == {"enable-auto-tool-choice", "max-model-len", "dtype"}
    (tmp_path / "engine/arg_utils.py").write_bytes(b"\xff(")
    assert flags_of(tmp_path) == {"enable-auto-tool-choice", "max-model-len"}
    assert known_flags(environment("container")) is None
    assert known_flags(environment("interpreter", sys.executable)) is None, "no vLLM here"
    assert known_flags(environment("interpreter", "/no/such/python")) is None
