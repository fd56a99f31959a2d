"""Terms of the calibrated energy roofline, what each is multiplied with, in one place for fit and estimate.

    E_tok = e_byte * (W / B + KV * ctx) + e_flop * 2 N + e_0                 J per output token
    E_prompt = e_prefill * FLOPs of the prompt / T_in                        J per prompt token

W are the bytes of weights that a step reads (with the experts it is expected to touch), B the mean running batch,
KV * ctx the bytes of cache that a step reads for a request, N the active parameters. Where a calibration knows the
prompts apart, an output token of a mixed load also carries its share of the prompt, E_prompt * T_in / T_out.
"""

from typing import Literal

import numpy as np

from inference_energy.estimate.cases import Cases
from inference_energy.estimate.shapes.shape import Array

Name = Literal["byte", "flop", "token", "prefill"]
UNITS: dict[Name, str] = {"byte": "J/byte", "flop": "J/FLOP", "token": "J/token", "prefill": "J/FLOP"}


def decode_bytes(cases: Cases) -> Array:
    """Bytes read for an output token: W / B + KV * ctx."""
    return np.asarray(cases.step_bytes / cases.batch + cases.kv_read_bytes)


def decode_columns(cases: Cases, names: tuple[Name, ...], *, prompts_apart: bool) -> Array:
    """What the terms are multiplied with for an output token, shape (cases, terms)."""
    columns: dict[Name, Array] = {
        "byte": decode_bytes(cases),
        "flop": 2 * cases.active,
        "token": np.ones(len(cases)),
        "prefill": cases.prefill_flops / cases.output_tokens if prompts_apart else np.zeros(len(cases)),
    }
    return np.stack([columns[name] for name in names], axis=1)


def prompt_columns(cases: Cases, names: tuple[Name, ...]) -> Array:
    """What the terms are multiplied with for a prompt token, shape (cases, terms): its FLOPs and nothing else."""
    flops = cases.prefill_flops / cases.input_tokens
    return np.stack([flops if name == "prefill" else np.zeros(len(cases)) for name in names], axis=1)
