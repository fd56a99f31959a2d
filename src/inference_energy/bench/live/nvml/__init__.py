"""NVML on a virtual node: the driver, and the functions that pynvml gives."""
