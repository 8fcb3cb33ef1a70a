"""What this machine has. The GPUs are those that a stand-in for nvidia-smi lists: a real program on the PATH."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlintern.tools.jobs.local_hardware import Gpu, probe

LISTING = "0, GPU-aaaa, NVIDIA H200, 143771\n1, GPU-bbbb, NVIDIA H200, 143771\n"


def write(program: Path, *, listing: str = LISTING, long: str = "") -> None:
    program.write_text(
        f"#!/bin/sh\n[ \"$1\" = -L ] && {{ printf '%s' '{long}'; exit 0; }}\nprintf '%s' '{listing}'\n"
    )
    program.chmod(0o755)


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "nvidia-smi"
    write(program)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return program


def test_cores_and_memory_are_those_that_this_process_may_use() -> None:
    machine = probe()
    assert len(machine.cores) >= 1 and machine.memory_gib > 0.1


def test_gpus_are_listed_with_model_and_memory(smi: Path) -> None:
    assert probe().gpus == (Gpu("0", "NVIDIA H200", 140.4), Gpu("1", "NVIDIA H200", 140.4))


@pytest.mark.parametrize(
    ("visible", "devices"),
    [
        ("1", ["1"]),
        ("GPU-bbbb,0", ["1", "0"]),
        ("", []),
        ("7", []),
        ("0,-1,1", ["0"]),
        ("0,GPU-aaaa,0", ["0"]),
        ("GPU-b", ["1"]),
        ("GPU-", []),
    ],
)
def test_only_the_visible_devices_count_in_their_order(smi: Path, visible: str, devices: list[str]) -> None:
    assert [gpu.device for gpu in probe(visible_devices=visible).gpus] == devices


def test_a_driver_that_does_not_answer_means_no_gpu(smi: Path) -> None:
    smi.write_text("#!/bin/sh\necho 'no devices were found' >&2\nexit 9\n")
    assert probe().gpus == ()


MIG = """GPU 0: NVIDIA H200 (UUID: GPU-aaaa)
  MIG 1g.18gb     Device  0: (UUID: MIG-1111)
  MIG 3g.71gb     Device  1: (UUID: MIG-3333)
GPU 1: NVIDIA H200 (UUID: GPU-bbbb)
"""


@pytest.mark.parametrize(
    ("visible", "devices"),
    [(None, ["MIG-1111", "MIG-3333", "1"]), ("MIG-3333", ["MIG-3333"]), ("MIG-1", ["MIG-1111"]), ("1", ["1"])],
)
def test_a_gpu_that_is_cut_into_slices_counts_as_these(smi: Path, visible: str | None, devices: list[str]) -> None:
    write(smi, long=MIG)
    gpus = probe(visible_devices=visible).gpus
    assert [gpu.device for gpu in gpus] == devices
    assert {gpu.memory_gib for gpu in gpus if gpu.is_slice} <= {18.0, 71.0}


def test_a_gpu_without_memory_of_its_own_is_one_all_the_same(smi: Path) -> None:
    write(smi, listing="0, GPU-cccc, NVIDIA GB10, [N/A]\n")
    assert probe().gpus == (Gpu("0", "NVIDIA GB10", 0.0),)
