"""Which record a spelling of a GPU names, and which it must not."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bestserve.catalog import list_hardware, load_hardware, resolve_hardware
from bestserve.errors import InputError, UnknownNameError

SPELLINGS = {
    "H100-SXM": "h100-sxm",
    "H100-SXM5-80GB": "h100-sxm",
    "NVIDIA H100 80GB HBM3": "h100-sxm",
    "8x NVIDIA H100 SXM5 80 GB": "h100-sxm",
    "NVIDIA H100 PCIe": "h100-pcie",
    "NVIDIA H100 NVL": "h100-nvl",
    "h100 94gb": "h100-nvl",
    "NVIDIA H200": "h200-sxm",
    "H800": "h800-sxm",
    "NVIDIA A100-SXM4-80GB": "a100-80gb-sxm",
    "NVIDIA A100-SXM4-40GB": "a100-40gb-sxm",
    "NVIDIA A100 80GB PCIe": "a100-80gb-pcie",
    "NVIDIA A100-PCIE-40GB": "a100-40gb-pcie",
    "Tesla V100S-PCIE-32GB": "v100s-pcie",
    "NVIDIA GeForce RTX 4090": "rtx-4090",
    "NVIDIA GeForce RTX 4090 D": "rtx-4090d",
    "rtx3090": "rtx-3090",
    "RTX 3090": "rtx-3090",
    "NVIDIA RTX A6000": "rtx-a6000",
    "A6000": "rtx-a6000",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "rtx-pro-6000-server",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "rtx-pro-6000-workstation",
    "NVIDIA L4": "l4",
    "L40S": "l40s",
    "L40": "l40",
    "NVIDIA A10G": "a10g",
    "A10": "a10",
    "AMD Instinct MI300X": "mi300x",
    "MI325X OAM": "mi325x",
    "NVIDIA GB200 NVL72": "gb200",
    "NVIDIA B200 (180GB)": "b200-sxm",
    "Ascend 910B3": "ascend-910b3",
    "GH200 480GB": "gh200-96gb",  # 480 GB are the CPU's: the driver's name of the 96 GB card
    "H200 NVL": "h200-nvl",
    "H100 SXM 40GB": None,
    "Tesla T4": "t4",
    "NVIDIA GeForce RTX 5090": "rtx-5090",
    "rtx4090": "rtx-4090",
    "rtx4090d": "rtx-4090d",
    "RTX6000Ada": "rtx-6000-ada",
    "Quadro RTX 6000": None,
    "RTX 4090 Laptop GPU": None,
    "h100sxm5": "h100-sxm",
    "NVIDIA A800-SXM4-80GB": "a800-80gb-sxm",
    "NVIDIA H20": "h20",
    "NVIDIA H20-3e": "h20-3e",
    "NVIDIA GB10": "gb10",
    "AMD Instinct MI350X": "mi350x",
    "Intel Gaudi 3": "gaudi-3",
    "Intel Gaudi 2": None,
    "Cloud TPU v6e": "tpu-v6e",
    "AWS Trainium 2": "trainium-2",
    "": None,
    "GPU": None,
    "\x00": None,
    "x" * 10_000: None,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(spelling: str) -> None:
    found = resolve_hardware(spelling)
    assert (found.hardware.name if found.hardware else None) == SPELLINGS[spelling]
    assert found.note or found.hardware


AMBIGUOUS = {
    "NVIDIA H100": {"h100-sxm", "h100-pcie", "h100-nvl"},
    "h100": {"h100-sxm", "h100-pcie", "h100-nvl"},
    "nvidia-h100-80gb": {"h100-sxm", "h100-pcie"},
    "A100": {"a100-40gb-sxm", "a100-80gb-sxm", "a100-40gb-pcie", "a100-80gb-pcie"},
    "A100 80GB": {"a100-80gb-sxm", "a100-80gb-pcie"},
    "GH200": {"gh200-96gb", "gh200-144gb"},
    "RTX PRO 6000": {"rtx-pro-6000-server", "rtx-pro-6000-workstation"},
}


@pytest.mark.parametrize("spelling", AMBIGUOUS)
def test_ambiguous_spellings_are_not_guessed(spelling: str) -> None:
    found = resolve_hardware(spelling)
    assert found.hardware is None
    assert set(found.candidates) == AMBIGUOUS[spelling]
    with pytest.raises(InputError, match=r"ambiguous.*name one of") as refused:
        load_hardware(spelling)
    assert all(name in str(refused.value) for name in AMBIGUOUS[spelling])
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("name", list_hardware())
def test_records_answer_to_name_title_and_aliases_alone(name: str) -> None:
    gpu = load_hardware(name)
    for spelling in (name, name.upper(), *gpu.aliases):
        found = resolve_hardware(spelling)
        assert found.hardware is not None
        assert found.hardware.name == name
    titled = resolve_hardware(gpu.title).hardware
    assert titled == gpu or "(one GPU" in gpu.title


@pytest.mark.parametrize(
    "spelling",
    ["NVIDIA A100-SXM4-80GB MIG 3g.40gb", "H100 80GB HBM3 MIG 1g.10gb", "nvidia.com/mig-2g.20gb"],
)
def test_slices_are_refused_as_such(spelling: str) -> None:
    with pytest.raises(InputError, match=r"slices of a GPU \(MIG\) are not modelled"):
        load_hardware(spelling)


def test_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown hardware 'h100-smx'; nearest: h100-sxm"):
        load_hardware("h100-smx")


# Strings that the measured rows use for GPUs and that do not say which board it is.
UNDETERMINED = {
    "NVIDIA H100": "form factor not stated",
    "nvidia-h100-80gb": "SXM and PCIe both have 80 GB",
    "NVIDIA A100": "form factor and memory not stated",
    "NVIDIA RTX PRO 6000 Blackwell": "server or workstation edition not stated",
}


def test_every_gpu_of_the_measured_rows_is_found_or_named_ambiguous(shared: Path) -> None:
    with (shared / "measured" / "measured_dev.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    spelled = {row["gpu"]: row["gpu_canonical"] for row in rows}
    assert len(spelled) > 30
    ambiguous = set()
    for spelling, canonical in spelled.items():
        found = resolve_hardware(spelling)
        if found.hardware is None:
            assert found.candidates, f"{spelling!r}: {found.note}"
            ambiguous.add(spelling)
            assert resolve_hardware(canonical).hardware is None
        else:
            # The row's own canonical name, written by somebody else, must mean the same board.
            same = resolve_hardware(canonical).hardware
            assert same is not None
            assert same.name == found.hardware.name
    assert ambiguous == set(UNDETERMINED)
