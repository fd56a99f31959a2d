"""NVML of a virtual node, under the name of NVIDIA's module."""

from inference_energy.bench.live.nvml.device import *
from inference_energy.bench.live.nvml.names import *
from inference_energy.bench.live.nvml.session import *

# ruff: noqa: F403 - all of it, under another name
