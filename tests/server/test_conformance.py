"""The protocol's own conformance suite, where it is installed:

npm install --global @modelcontextprotocol/conformance@0.2.0-alpha.12   (Node 22 or newer)

Only the scenarios that need no fixture tools of the suite's own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.test_processes import serving_http

MODERN = [
    "tools-list",
    "resources-list",
    "prompts-list",
    "caching",
    "completion-complete",
    "http-header-validation",
    "dns-rebinding-protection",
    "sep-2164-resource-not-found",
    "server-sse-multiple-streams",
    "input-required-result-unsupported-methods",
    "input-required-result-ignore-extra-params",
    "input-required-result-validate-input",
    "input-required-result-missing-input-response",
]
LEGACY = [
    "server-initialize",
    "server-session-lifecycle",
    "ping",
    "tools-list",
    "resources-list",
    "prompts-list",
    "completion-complete",
    "dns-rebinding-protection",
    "server-sse-multiple-streams",
]
NEEDS_A_FIXTURE = {"ServerRejectsUndeclaredCapability", "MissingCapabilityHttp400"}


def missing() -> str | None:
    """Why the suite cannot run here, or None."""
    node = shutil.which("node")
    if shutil.which("conformance") is None or node is None:
        return "the conformance suite is not installed"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return None if int(version.lstrip("v").partition(".")[0]) >= 22 else f"it needs Node 22; this is {version}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if reason := missing():
        pytest.skip(reason)
    with serving_http(tmp_path_factory.mktemp("conformance")) as address:
        yield address


def run(address: str, scenario: str, version: str, folder: Path) -> str:
    command = ["conformance", "server", "--url", address, "--scenario", scenario, "--spec-version", version]
    done = subprocess.run([*command, "-o", str(folder)], capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


@pytest.mark.real
@pytest.mark.parametrize(
    "version, scenario",
    [("2026-07-28", name) for name in MODERN] + [("2025-11-25", name) for name in LEGACY],
)
def test_the_server_conforms(server: str, version: str, scenario: str, tmp_path: Path) -> None:
    output = run(server, scenario, version, tmp_path)
    assert re.search(r"Passed: (\d+)/\1, 0 failed", output), output


@pytest.mark.real
def test_the_server_is_stateless_but_for_what_needs_a_fixture(server: str, tmp_path: Path) -> None:
    output = run(server, "server-stateless", "2026-07-28", tmp_path)
    failed = set(re.findall(r"^  - (\w+):", output, re.MULTILINE))
    assert "Passed: 26/28" in output and failed <= NEEDS_A_FIXTURE, output
