"""What a server's environment holds, and what of it is written down."""

from collections.abc import Callable
from pathlib import Path

import pytest

from inference_energy.acquire.server.launch import recorded_environment, server_environment
from inference_energy.acquire.server.settings import LaunchSpec

Make = Callable[..., LaunchSpec]


def test_only_what_is_named_passes(stub_spec: Make) -> None:
    base = {
        "HOME": "/home/me",
        "HF_HOME": "/models",
        "https_proxy": "http://proxy:1",
        "OMP_NUM_THREADS": "1",
        "VLLM_USE_V1": "0",
        "PYTHONPATH": "/mine",
        "CUDA_VISIBLE_DEVICES": "3",
    }
    environment = server_environment(stub_spec(interpreter=Path("/env/bin/python")), base)
    assert environment == {
        "HOME": "/home/me",
        "HF_HOME": "/models",
        "https_proxy": "http://proxy:1",
        "PATH": "/env/bin:/usr/local/bin:/usr/bin:/bin",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def test_gpus_and_the_specs_own_variables(stub_spec: Make) -> None:
    spec = stub_spec(gpus=["GPU-a", "GPU-b"], environment={"DO_NOT_TRACK": "0", "VLLM_CPU_KVCACHE_SPACE": "1"})
    environment = server_environment(spec, {})
    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    assert (environment["DO_NOT_TRACK"], environment["VLLM_CPU_KVCACHE_SPACE"]) == ("0", "1")


@pytest.mark.parametrize(("tmpdir", "passes"), [("/scratch", True), ("/repo/.snakemake/tmp.x", False)])
def test_snakemakes_tmpdir_does_not_pass(stub_spec: Make, tmpdir: str, passes: bool) -> None:
    assert ("TMPDIR" in server_environment(stub_spec(), {"TMPDIR": tmpdir})) is passes


def test_on_a_simulated_machine_the_way_to_its_vllm_passes(stub_spec: Make) -> None:
    base = {"INFERENCE_ENERGY_SIMULATED": "/node", "PYTHONPATH": "/bench", "OMP_NUM_THREADS": "1"}
    environment = server_environment(stub_spec(), base)
    assert (environment["INFERENCE_ENERGY_SIMULATED"], environment["PYTHONPATH"]) == ("/node", "/bench")
    assert "OMP_NUM_THREADS" not in environment
    assert "PYTHONPATH" not in server_environment(stub_spec(), base | {"INFERENCE_ENERGY_SIMULATED": ""})


def test_secrets_are_masked() -> None:
    recorded = recorded_environment(
        {
            "HF_TOKEN": "hf_1",
            "VLLM_API_KEY": "k",
            "aws_secret": "s",
            "DB_PASSWORD": "p",
            "https_proxy": "http://me:pw@proxy:3128",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_ENDPOINT": "https://hub",
        }
    )
    assert recorded == {
        "HF_TOKEN": "(masked)",
        "VLLM_API_KEY": "(masked)",
        "aws_secret": "(masked)",
        "DB_PASSWORD": "(masked)",
        "https_proxy": "http://(masked)@proxy:3128",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_ENDPOINT": "https://hub",
    }
    assert list(recorded) == sorted(recorded)
