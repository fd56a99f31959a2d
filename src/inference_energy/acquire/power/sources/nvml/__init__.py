"""GPU power through NVML, NVIDIA's management library."""
