"""The house: every module is on the page, says what it holds, and takes more than two parameters by keyword."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house.architecture_map import PAGE, ROOT, modules, page, summary

LONGEST_FILE = 415
DECORATED = ("property", "overload", "override", "validator", "tool", "prompt", "resource", "fixture", "command")
"""Functions with these decorators are called by somebody else's rules."""


def test_every_module_is_on_the_page_with_what_it_says_of_itself() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "docs/architecture.md is behind the code: run make map"


@pytest.mark.parametrize("path", list(modules()), ids=str)
def test_a_module_says_in_one_line_what_it_holds(path: Path) -> None:
    assert len(summary(path)) > 10 or path.name == "__main__.py"


@pytest.mark.parametrize("path", list(modules()), ids=str)
def test_no_file_is_longer_than_its_subject(path: Path) -> None:
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{path} has {lines} lines: split it by subject"
