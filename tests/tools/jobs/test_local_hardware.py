"""What this machine has. The GPUs are those that a stand-in for nvidia-smi lists: a real program on the PATH."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlintern.tools.jobs.local_hardware import Gpu, probe

LISTING = "0, GPU-aaaa, NVIDIA H200, 143771\n1, GPU-bbbb, NVIDIA H200, 143771\n"


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '%s' '{LISTING}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return program


def test_cores_and_memory_are_those_that_this_process_may_use() -> None:
    machine = probe()
    assert len(machine.cores) >= 1 and machine.memory_gib > 0.1


def test_gpus_are_listed_with_model_and_memory(smi: Path) -> None:
    assert probe().gpus == (Gpu("0", "NVIDIA H200", 140.4), Gpu("1", "NVIDIA H200", 140.4))


@pytest.mark.parametrize(("visible", "devices"), [("1", ["1"]), ("GPU-bbbb,0", ["1", "0"]), ("", []), ("7", [])])
def test_only_the_visible_devices_count_in_their_order(smi: Path, visible: str, devices: list[str]) -> None:
    assert [gpu.device for gpu in probe(visible_devices=visible).gpus] == devices


def test_a_driver_that_does_not_answer_means_no_gpu(smi: Path) -> None:
    smi.write_text("#!/bin/sh\necho 'no devices were found' >&2\nexit 9\n")
    assert probe().gpus == ()
