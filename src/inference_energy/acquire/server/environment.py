"""The server's environment: written out, not inherited.

Snakemake sets OMP_NUM_THREADS and its like and points TMPDIR into its own folder; a shell may hold VLLM_* variables.
Any of them can change what is measured, so only what is named here passes, and what was used can be recorded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from inference_energy.acquire.power.simulated import VARIABLE as SIMULATED
from inference_energy.acquire.server.spec import LaunchSpec

PASSED_ON = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
        *("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "HF_HUB_OFFLINE"),
    }
)
# No usage reports: they are traffic and CPU time that belong to no request.
DEFAULTS = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
SECRET = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
MASK = "(masked)"


def server_environment(spec: LaunchSpec, base: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of the server; ``base`` is the caller's.

    In rising order: what passes from ``base``, the defaults, CUDA_VISIBLE_DEVICES from the spec's GPUs (empty without
    any: a CPU server sees none), the spec's own variables. The interpreter's folder comes first on PATH, as in an
    activated environment: vLLM calls ninja and the like by name. On a simulated machine the variable that
    says so passes too, and PYTHONPATH, on which its vLLM lies.
    """
    passed_on = PASSED_ON | {SIMULATED, "PYTHONPATH"} if base.get(SIMULATED) else PASSED_ON
    environment = {name: value for name, value in base.items() if name in passed_on}
    if ".snakemake" in Path(environment.get("TMPDIR", "")).parts:
        del environment["TMPDIR"]
    if spec.interpreter is not None:
        path = environment.get("PATH", "/usr/local/bin:/usr/bin:/bin")
        environment["PATH"] = f"{spec.interpreter.parent}:{path}"
    return {
        **dict(sorted(environment.items())),
        **DEFAULTS,
        "CUDA_VISIBLE_DEVICES": ",".join(spec.gpus),
        **spec.environment,
    }


def recorded_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment as it may be written down: secrets masked, by name and as passwords in URLs; sorted."""
    return {name: _recorded(name, value) for name, value in sorted(environment.items())}


def _recorded(name: str, value: str) -> str:
    if SECRET.search(name):
        return MASK
    if "@" in value and "://" in value:
        parts = urlsplit(value)
        if parts.password or parts.username:
            return parts._replace(netloc=f"{MASK}@{parts.netloc.rpartition('@')[2]}").geturl()
    return value
