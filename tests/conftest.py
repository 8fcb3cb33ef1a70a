"""What every test may use: a workspace of its own, a clock that moves on request, a scrubbed environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.preloaded import AGENT, Preloaded

# A busy machine is no failure of the code.
settings.register_profile("mlintern", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mlintern")

KEPT = ("MLINTERN_RECORDED", "MLINTERN_LIVE", "HF_HUB_DISABLE_XET")

# Large files go the way of git LFS, which has a stand-in; the storage servers of Xet have none. huggingface_hub reads
# this when it is imported, which some test modules do.
os.environ["HF_HUB_DISABLE_XET"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, a file at a time, so that two workers end together."""
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)  # stable: the rest of the order is kept


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def scrubbed_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, endpoint or workspace of the developer's reaches a test; polite waits take no time."""
    for name in list(os.environ):
        if name.startswith(("MLINTERN_", "HF_", "ANTHROPIC_")) and name not in KEPT:
            monkeypatch.delenv(name)
    for name in ("S2_API_KEY", "OPENALEX_API_KEY", "GITHUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLINTERN_WAIT_SCALE", "0")
    monkeypatch.setenv("MLINTERN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")


@pytest.fixture(scope="session")
def preloaded_agent() -> Iterator[Preloaded]:
    """Stands where an interpreter would that runs the orchestrator or the tests' MCP server."""
    with Preloaded(AGENT, os.environ) as programs:
        yield programs


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "home")


@pytest.fixture
def ledger(workspace: Workspace) -> Ledger:
    return Ledger(workspace.ledger)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def recorded() -> Path:
    """The folder of recorded outside responses; the test is skipped where it is absent."""
    folder = Path(os.environ.get("MLINTERN_RECORDED", Path(__file__).parents[2] / "shared" / "recorded"))
    if not folder.is_dir():
        pytest.skip("recorded responses are not present (set MLINTERN_RECORDED)")
    return folder
