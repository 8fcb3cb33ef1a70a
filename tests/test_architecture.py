"""The house: every module is on the page, says what it holds, and takes more than two parameters by keyword."""

from __future__ import annotations

import ast
import builtins
import re
from pathlib import Path

import pytest

from tests.house.architecture_map import PAGE, ROOMS, ROOT, modules, page, summary

CAUGHT_IN_THEIR_ROOM = {"Refused"}
"""What a trainer would refuse of a row: `try_row` and `formats` turn it into a finding; no tool raises it."""
ARCHAIC = re.compile(
    r"\b(?:whoever|mend|mends|mended|mending|dearest|whence|thereof|hereby|henceforth|nought|naught|behold|forthwith"
    r"|wherein|whereby|lest|ere|betwixt|amongst|whilst|unto|thrice|in vain)\b",
    re.IGNORECASE,
)
"""Words that a reader of technical English has to look up."""
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


@pytest.mark.parametrize("room, base", [("orchestrator", "OrchestratorError"), ("tools", "MlinternError")])
def test_every_error_of_a_room_has_its_one_base_class(room: str, base: str) -> None:
    parents = {
        node.name: {ast.unparse(parent) for parent in node.bases}
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    builtin = {
        name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)
    }
    others = {name for name, above in parents.items() if above & builtin}
    assert {name for name in others if not name.startswith("_")} - CAUGHT_IN_THEIR_ROOM == {base}


@pytest.mark.parametrize("room", [*ROOMS, "docs", "skills", "release"])
def test_the_words_are_those_of_today(room: str) -> None:
    texts = [path for path in (ROOT / room).rglob("*") if path.suffix in (".py", ".md", ".j2")]
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in texts
        for word in ARCHAIC.findall(path.read_text(encoding="utf-8"))
    ]
    assert found == []
