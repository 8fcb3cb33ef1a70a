"""A file is whole or absent, whatever happens; a lock dies with its holder."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mlintern.common.clock import SystemClock, iso
from mlintern.common.files import exclusive_lock, write_durably, write_json_durably

HOLDER = """
import sys
from pathlib import Path
from mlintern.common.files import exclusive_lock
with exclusive_lock(Path(sys.argv[1])) as held:
    print(held, flush=True)
    sys.stdin.read()
"""


def system_calls(path: Path, data: bytes) -> list[str]:
    """The calls of `os` that writing makes, in their order."""
    made: list[str] = []

    def note(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ in ("write", "fsync", "replace", "rename"):
            made.append(called.__name__)

    sys.setprofile(note)
    try:
        write_durably(path, data)
    finally:
        sys.setprofile(None)
    return made


def test_data_is_on_the_disk_before_its_name_and_the_name_before_the_call_returns(tmp_path: Path) -> None:
    """A power cut between any two steps leaves the old file or the new one."""
    made = system_calls(tmp_path / "state.json", b"new")
    assert made == ["write", "fsync", "replace", "fsync"]


def test_a_file_is_replaced_as_a_whole_with_the_mode_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(b"a much longer text than the new one")
    write_durably(path, b"new", mode=0o640)
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o640
    write_durably(path, b"own")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def write_beyond_the_limit(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        write_durably(path, b"x" * 100_000)
    except OSError:
        os._exit(3)


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(b"old")
    child = multiprocessing.get_context("spawn").Process(target=write_beyond_the_limit, args=(path,))
    child.start()
    child.join(60)
    assert child.exitcode == 3
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("value", [float("nan"), {"loss": float("inf")}])
def test_what_is_not_json_is_not_written(value: object, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    with pytest.raises(ValueError):
        write_json_durably(path, value)
    assert not path.exists()
    write_json_durably(path, {"ok": "é"})
    assert json.loads(path.read_text()) == {"ok": "é"}


def test_a_lock_is_held_by_one_process_and_freed_by_its_death(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "True\n"
        with exclusive_lock(lock, blocking=False) as held:
            assert not held
        holder.kill()
        holder.wait(30)
        with exclusive_lock(lock, blocking=False) as held:
            assert held


def test_a_lock_is_free_again_after_its_block_even_if_that_raised(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), exclusive_lock(tmp_path / "lock"):
        raise RuntimeError
    with exclusive_lock(tmp_path / "lock", blocking=False) as held:
        assert held


@pytest.mark.anyio
async def test_the_scale_of_waits_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLINTERN_WAIT_SCALE", "0")
    clock = SystemClock()
    started = clock.monotonic()
    await clock.sleep(3600)
    await clock.sleep(-1)
    assert clock.monotonic() - started < 60
    monkeypatch.delenv("MLINTERN_WAIT_SCALE")
    assert SystemClock().wait_scale == 1


def test_times_are_written_in_utc() -> None:
    assert iso(0) == "1970-01-01T00:00:00Z"
    assert iso(1795410872.9) == "2026-11-23T05:14:32Z"
