"""The GPUs the bench knows."""

from inference_energy.bench.parts.devices import Device

H100 = Device(
    name="h100",
    label="NVIDIA H100 80GB HBM3",
    memory_bytes=80 * 2**30 * 0.995,
    bandwidth_bytes_per_s=3.35e12,
    peak_flops=989e12,
    power_limit_w=700.0,
    link_bytes_per_s=450e9,
    memory_share=0.72,
    flop_share=0.65,
    exposed_share=0.2,
    reduce_latency_s=12e-6,
    cold_idle_w=70.0,
    loaded_idle_w=122.0,
    busy_w=240.0,
    gap_w=180.0,
    byte_j=85e-12,
    flop_j=0.6e-12,
    memory_idle_w=35.0,
)

DEVICES = {device.name: device for device in (H100,)}
