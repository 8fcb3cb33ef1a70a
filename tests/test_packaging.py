"""What a wheel must hold: every package of the rooms, and the files that are no Python."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("common", "tools", "server", "orchestrator")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_is_in_the_distribution() -> None:
    found = {
        ".".join(("mlintern", *init.parent.relative_to(ROOT).parts))
        for room in ROOMS
        for init in (ROOT / room).rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {"mlintern.skills"}


def test_every_file_that_is_no_python_is_package_data() -> None:
    packages = {ROOT.joinpath(*name.split(".")[1:]) for name in PROJECT["tool"]["setuptools"]["packages"]}
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    for room in (*ROOMS, "skills"):
        for path in (ROOT / room).rglob("*"):
            if not path.is_file() or path.suffix == ".py" or "__pycache__" in path.parts:
                continue
            package = next(parent for parent in path.parents if parent in packages)
            inside = path.relative_to(package)
            assert any(in_wheel(inside, pattern) for pattern in patterns), f"{path} would be missing from a wheel"


def in_wheel(inside: Path, pattern: str) -> bool:
    """Whether setuptools' ``pattern`` takes ``inside``; its ``*`` does not cross folders."""
    return inside.match(pattern) and len(inside.parts) == pattern.count("/") + 1


def test_no_file_of_the_project_names_a_package_index() -> None:
    for name in ("pyproject.toml", "Makefile", "constraints/cpu.txt", "constraints/tested.txt"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "index-url" not in text and "find-links" not in text
    assert not (ROOT / "uv.lock").exists()
