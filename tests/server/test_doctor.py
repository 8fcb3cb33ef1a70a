from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mlintern.server.cli import main
from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.server.web.serve import IDLE_SECONDS, serve_page
from tests.clock import FakeClock


def test_doctor_names_the_workspace_this_machine_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--workspace", str(tmp_path / "home")]) == 0
    shown = capsys.readouterr().out
    assert f"ok      workspace: {tmp_path / 'home'} (0 jobs)" in shown
    assert "ok      backend local: offers" in shown
    assert "missing backend hf_jobs" in shown and "hf auth login" in shown
    assert "note    backend slurm: not configured" in shown
    assert "note    GITHUB_TOKEN: not set" in shown


def test_doctor_fails_where_nothing_can_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    occupied = tmp_path / "a file"
    occupied.write_text("")
    assert main(["doctor", "--workspace", str(occupied / "home")]) == 1
    shown = capsys.readouterr().out
    assert "missing workspace" in shown and "--workspace" in shown


def test_doctor_fails_on_a_mistake_in_the_configuration_which_keeps_every_job_from_starting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.toml").write_text("[slurmm]\n")
    assert main(["doctor", "--workspace", str(tmp_path)]) == 1
    assert "unknown key 'slurmm'" in capsys.readouterr().out


def test_doctor_says_which_interpreter_local_jobs_would_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--workspace", str(tmp_path), "--python", str(tmp_path / "no-python")]) == 0
    assert f"{tmp_path / 'no-python'} for local jobs does not work" in capsys.readouterr().out


@pytest.mark.anyio
async def test_the_approval_page_opens_in_a_browser_and_ends_when_nobody_looks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = FakeClock()
    start = clock.monotonic()
    opened: list[str] = []
    await serve_page(Lab(Settings(workspace=tmp_path), clock=clock), open_in_browser=opened.append)
    assert clock.monotonic() - start >= IDLE_SECONDS
    [address] = opened
    assert address.startswith("file://") and "token" not in address, "every process can read a command line"
    captured = capsys.readouterr()
    assert "Decide at http://127.0.0.1:" in captured.err and " with the code " in captured.err
    assert "token" not in captured.err and captured.out == ""
    assert not list((tmp_path / "pages").iterdir()), "the file with the token goes with the page"


@pytest.mark.anyio
async def test_the_file_that_opens_the_page_is_the_users_alone(tmp_path: Path) -> None:
    seen: list[tuple[int, str]] = []

    def look(address: str) -> None:
        file = Path(address.removeprefix("file://"))
        seen.append((stat.S_IMODE(file.stat().st_mode), file.read_text()))

    await serve_page(Lab(Settings(workspace=tmp_path), clock=FakeClock()), open_in_browser=look)
    [(mode, page)] = seen
    assert mode == 0o600 and 'http-equiv="refresh"' in page and "?token=" in page
