"""docs/security.md: every threat names the test that holds it, and that test exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`([\w/]*test_\w+\.py)(?:::(test_\w+))?`")


def threats() -> list[tuple[str, str]]:
    """Threat and last cell of each row of the page's tables."""
    rows = [line.strip().strip("|").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    return [(row[0].strip(), row[-1].strip()) for row in rows if row[0].strip() != "threat"]


def test_the_page_has_its_tables() -> None:
    assert len(threats()) > 20


@pytest.mark.parametrize(("threat", "held_by"), threats())
def test_every_threat_names_the_test_that_holds_it(threat: str, held_by: str) -> None:
    assert NAMED.search(held_by), f"{threat}: no test is named in {held_by!r}"


@pytest.mark.parametrize(("file", "test"), sorted(set(NAMED.findall(PAGE))))
def test_every_named_test_exists(file: str, test: str) -> None:
    found = [path for path in (ROOT / "tests").rglob(Path(file).name) if path.as_posix().endswith(f"/{file}")]
    assert found, f"there is no {file}"
    assert not test or any(f"def {test}(" in path.read_text(encoding="utf-8") for path in found), (
        f"no {test} in {file}"
    )
