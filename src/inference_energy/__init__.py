"""Inference Energy Toolkit: measured energy of LLM serving."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference_energy.api.estimates import estimate_energy
    from inference_energy.api.load_test.run import plan_load, run_load
    from inference_energy.api.load_test.settings import LoadTest
    from inference_energy.api.power_monitor import PowerMonitor
    from inference_energy.api.results import read_results

__version__ = "0.1.0"
__all__ = ["LoadTest", "PowerMonitor", "__version__", "estimate_energy", "plan_load", "read_results", "run_load"]

_MODULES = {
    "LoadTest": "inference_energy.api.load_test.settings",
    "PowerMonitor": "inference_energy.api.power_monitor",
    "estimate_energy": "inference_energy.api.estimates",
    "plan_load": "inference_energy.api.load_test.run",
    "read_results": "inference_energy.api.results",
    "run_load": "inference_energy.api.load_test.run",
}


def __getattr__(name: str) -> Any:
    """Import a name of the API when it is first used, so that commands start without it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
