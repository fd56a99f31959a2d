"""The bench in real time: a server like any other, and a virtual GPU behind NVML's own functions."""
