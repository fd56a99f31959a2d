"""The virtual sensors: how the true power looks through NVML and RAPL."""
