"""The list of files in docs/architecture.md, made from the first line of each module's docstring: `make map`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
ROOMS = ("common", "tools", "server", "orchestrator")
BEGIN, END = "<!-- files: made by `make map` -->", "<!-- end of files -->"


def modules() -> Iterator[Path]:
    """Every module of the product with something in it, by room and folder."""
    for room in ROOMS:
        files = [path for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts]
        for path in sorted(files, key=lambda path: (path.parent, path.name)):
            if path.name != "__init__.py" or path.read_text(encoding="utf-8").strip():
                yield path.relative_to(ROOT)


def summary(path: Path) -> str:
    """The first line of the module's docstring."""
    text = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].replace("|", "\\|")


def listing() -> str:
    """The Markdown between the two marks."""
    lines: list[str] = [BEGIN]
    folder = None
    for path in modules():
        if path.parent != folder:
            folder = path.parent
            lines += ["", f"### {folder}/", "", "| file | what it holds |", "|---|---|"]
        lines.append(f"| `{path.name}` | {summary(path)} |")
    return "\n".join([*lines, "", END])


def page(text: str) -> str:
    """The page with its list of files made anew."""
    before, _, rest = text.partition(BEGIN)
    return before + listing() + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
