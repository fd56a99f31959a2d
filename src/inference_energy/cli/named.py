"""What a configuration names in tables that `config` does not know, looked up before anything is measured."""

from inference_energy.config.root import Config
from inference_energy.estimate.calibration.record import load_calibration
from inference_energy.estimate.hardware.gpus import gpu_of
from inference_energy.metrics.pareto import larger_is_better


def check_names(config: Config) -> None:
    """Look up the GPU and the calibration of the estimates and the figures of the Pareto fronts.

    Raises:
        InputError: one is not there; the message has its key and what to write.
    """
    if config.estimate.gpu:
        gpu_of(config.estimate.gpu, "estimate.gpu")
    if config.estimate.calibration:
        load_calibration(config.estimate.calibration, "estimate.calibration")
    for pair in config.metrics.pareto:
        for name in pair:
            larger_is_better(name)
