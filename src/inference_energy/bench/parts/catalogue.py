"""The GPUs the bench knows.

Data-sheet numbers: NVIDIA's data sheets (H100 SXM5 80 GB; A100 SXM4 80 GB; GeForce RTX 4090 Laptop, dense bf16 with
32-bit accumulation). The constants of H100 are fitted by `validation.calibration` to published rows and measured
windows (docs/validation/bench.md has the residuals); its idle powers are measured. Those of the other two are not
fitted: their efficiencies are the H100's, their floors scale with the power limit, their energy of a FLOP with power
limit over peak, and of a byte with power limit over bandwidth.
"""

from inference_energy.bench.parts.devices import Device

H100 = Device(
    name="h100",
    label="NVIDIA H100 80GB HBM3",
    memory_bytes=80 * 2**30 * 0.995,
    bandwidth_bytes_per_s=3.35e12,
    peak_flops=989e12,
    power_limit_w=700.0,
    link_bytes_per_s=450e9,
    memory_share=0.80,
    flop_share=0.61,
    exposed_share=0.38,
    reduce_latency_s=6.3e-6,
    cold_idle_w=71.0,
    loaded_idle_w=122.0,
    busy_w=229.0,
    gap_w=294.0,
    byte_j=88e-12,
    flop_j=0.745e-12,
    thin_flop_j=1.31e-12,
    memory_idle_w=35.0,
)


def _scaled(
    name: str,
    label: str,
    *,
    memory_gib: float,
    bandwidth: float,
    peak: float,
    limit_w: float,
    link: float,
    idle_w: float,
    sm_clock_mhz: int,
    averages_power: bool = True,
) -> Device:
    """A GPU with the H100's efficiencies, its energies scaled by data-sheet numbers."""
    power = limit_w / H100.power_limit_w
    per_flop = power * H100.peak_flops / peak
    return H100.model_copy(
        update={
            "name": name,
            "label": label,
            "memory_bytes": memory_gib * 2**30 * 0.995,
            "bandwidth_bytes_per_s": bandwidth,
            "peak_flops": peak,
            "power_limit_w": limit_w,
            "link_bytes_per_s": link,
            "cold_idle_w": idle_w,
            "loaded_idle_w": idle_w * H100.loaded_idle_w / H100.cold_idle_w,
            "busy_w": H100.busy_w * power,
            "gap_w": H100.gap_w * power,
            "byte_j": H100.byte_j * power * H100.bandwidth_bytes_per_s / bandwidth,
            "flop_j": H100.flop_j * per_flop,
            "thin_flop_j": H100.thin_flop_j * per_flop,
            "memory_idle_w": H100.memory_idle_w * power,
            "k_per_w": H100.k_per_w / power,
            "leakage_w_per_k": H100.leakage_w_per_k * power,
            "sm_clock_mhz": sm_clock_mhz,
            "averages_power": averages_power,
        }
    )


A100 = _scaled(
    "a100",
    "NVIDIA A100-SXM4-80GB",
    memory_gib=80,
    bandwidth=2.039e12,
    peak=312e12,
    limit_w=400.0,
    link=300e9,
    idle_w=56.0,
    sm_clock_mhz=1410,
    averages_power=False,  # its chip is a GA100
)
LAPTOP = _scaled(
    "laptop",
    "NVIDIA GeForce RTX 4090 Laptop GPU",
    memory_gib=16,
    bandwidth=576e9,
    peak=86e12,
    limit_w=150.0,
    link=16e9,
    idle_w=9.0,
    sm_clock_mhz=2040,
)

DEVICES = {device.name: device for device in (H100, A100, LAPTOP)}
