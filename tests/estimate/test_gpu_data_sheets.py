"""The table of data sheets: what it must hold, and that its figures are of one kind."""

import pytest

from inference_energy.errors import InputError
from inference_energy.estimate.gpus import find_gpu, gpu_of_driver, gpus

WANTED = [
    *(
        "V100-SXM2-16",
        "V100-SXM2-32",
        "V100-PCIe-16",
        "V100-PCIe-32",
        "A100-40-PCIe",
        "A100-40-SXM",
        "A100-80-PCIe",
        "A100-80-SXM",
        "A10",
        "L4",
        "L40S",
    ),
    *("RTX-3090", "RTX-4090", "H100-PCIe", "H100-SXM", "H200", "B200", "MI300X"),
]


def test_every_gpu_is_there_with_a_source() -> None:
    assert list(gpus()) == WANTED
    assert all(gpu.source for gpu in gpus().values())


@pytest.mark.parametrize("name", WANTED)
def test_peaks_are_dense(name: str) -> None:
    """Halving the precision doubles the dense peak, but for 3090 and 4090, which halve with 32 bit accumulation."""
    gpu = gpus()[name]
    quick = [peak for peak in (gpu.fp8_flops, gpu.int8_flops) if peak is not None]
    for peak in quick:
        assert peak / gpu.bf16_flops == pytest.approx(2, rel=0.02) or (
            name.startswith("RTX") and peak / gpu.bf16_flops == pytest.approx(4, rel=0.01)
        )
    # FLOP for each byte of memory traffic where the roofline bends: 70 to 420 over eight years; sparse ones go beyond.
    assert 70 < gpu.bf16_flops / gpu.bandwidth_bytes_per_s < 425


@pytest.mark.parametrize(
    ("name", "tdp_w", "gb_per_s", "tflops", "memory_gb"),
    [("H100-SXM", 700, 3350, 989.4, 80), ("A100-80-SXM", 400, 2039, 312, 80), ("L4", 72, 300, 121, 24)],
)
def test_some_rows_by_hand(name: str, tdp_w: float, gb_per_s: float, tflops: float, memory_gb: float) -> None:
    gpu = find_gpu(name)
    assert (gpu.tdp_w, gpu.bandwidth_bytes_per_s, gpu.bf16_flops, gpu.memory_bytes) == pytest.approx(
        (tdp_w, gb_per_s * 1e9, tflops * 1e12, memory_gb * 1e9)
    )


def test_names_aliases_and_capitals() -> None:
    assert find_gpu("h100-sxm") is find_gpu("H100-SXM5") is find_gpu("H100 SXM5 80GB") is find_gpu("H100-SXM")
    assert find_gpu("RTX 4090") is find_gpu("rtx4090") is find_gpu("NVIDIA GeForce RTX 4090") is find_gpu("4090")
    assert find_gpu("nvidia a100 80gb pcie") is find_gpu("A100-PCIe-80GB") is find_gpu("A100-80-PCIe")
    with pytest.raises(InputError, match="MI300X"):
        find_gpu("H1000")


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("A100", "A100-40-PCIe, A100-40-SXM, A100-80-PCIe, A100-80-SXM"),
        ("NVIDIA A100", "A100-40-PCIe, A100-40-SXM, A100-80-PCIe, A100-80-SXM"),
        ("a100-80gb", "A100-80-PCIe, A100-80-SXM"),
        ("A100 SXM", "A100-40-SXM, A100-80-SXM"),
        ("A100 PCIe", "A100-40-PCIe, A100-80-PCIe"),
        ("H100", "H100-PCIe, H100-SXM"),
        ("V100", "V100-SXM2-16, V100-SXM2-32, V100-PCIe-16, V100-PCIe-32"),
        ("V100-SXM2", "V100-SXM2-16, V100-SXM2-32"),
        ("RTX", "RTX-3090, RTX-4090"),
        ("HBM3", "H100-SXM"),
    ],
)
def test_a_name_of_several_cards_is_answered_with_them(name: str, candidates: str) -> None:
    with pytest.raises(InputError, match=f"may be any of {candidates};"):
        find_gpu(name)


@pytest.mark.parametrize(
    ("name", "near"),
    [("H100-NVL", "H100-SXM"), ("L40", "L40S"), ("MI300", "MI300X"), ("GB200", "B200"), ("A100X", "A10")],
)
def test_a_card_that_is_not_there_is_answered_with_near_ones(name: str, near: str) -> None:
    with pytest.raises(InputError, match=f"{name} is not in the table of data sheets; the nearest are .*{near}"):
        find_gpu(name)
    with pytest.raises(InputError, match="x is not in the table of data sheets; there are"):
        find_gpu("x")


def test_names_belong_to_one_gpu() -> None:
    for kind in ("aliases", "driver_names"):
        names = [name.lower() for gpu in gpus().values() for name in getattr(gpu, kind)]
        assert len(names) == len(set(names))


def test_what_drivers_call_them() -> None:
    found = gpu_of_driver("NVIDIA H100 80GB HBM3")
    assert found is not None
    assert found.name == "H100-SXM"
    assert gpu_of_driver("NVIDIA A100-SXM4-80GB") is find_gpu("A100-80-SXM")
    assert gpu_of_driver("NVIDIA GH200 480GB") is None


def test_the_peak_is_that_of_the_precision_or_of_16_bit() -> None:
    assert find_gpu("H100-SXM").peak_flops("fp8") == pytest.approx(1978.9e12)
    assert find_gpu("A100-80-SXM").peak_flops("fp8") == pytest.approx(312e12)
    assert find_gpu("H100-SXM").peak_flops("int4") == pytest.approx(989.4e12)
