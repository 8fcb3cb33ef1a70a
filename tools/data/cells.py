"""The values of a row that could play a part in training, with the Python that reads each of them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Row = Mapping[str, Any]
Kind = Literal["text", "number", "bool", "list", "struct", "null"]
CONVERSATION_KEYS = (
    "messages",
    "conversations",
    "conversation",
    "dialogue",
    "dialog",
    "chat",
    "turns",
    "history",
    "contents",
)


@dataclass(frozen=True)
class Cell:
    """One column, or one field of a struct.

    Attributes:
        name: of the column; of a field ``column.field``.
        key: the last part of the name as it is compared: lower case, ``_`` between words.
        access: Python that reads it from ``row``.
        values: of the rows that were looked at, in their order.
    """

    name: str
    key: str
    access: str
    values: tuple[Any, ...]

    @property
    def present(self) -> list[Any]:
        return [value for value in self.values if not is_blank(value)]

    @property
    def kind(self) -> Kind:
        found = {_kind(value) for value in self.values if value is not None}
        if len(found) == 1:
            return next(iter(found))
        if found and found <= {"number", "bool"}:
            return "number"
        return "text" if "text" in found and found <= {"text", "number", "bool"} else ("list" if found else "null")

    @property
    def always(self) -> bool:
        """Whether every row that was looked at has a value that says something."""
        return len(self.present) == len(self.values)

    def text(self) -> str:
        """Python for its value as text; None stays falsy where the column holds text only."""
        if all(isinstance(value, str) for value in self.present):
            return self.access
        return f"str({self.access})"


def cells_of(rows: Sequence[Row]) -> list[Cell]:
    """The cells of ``rows``, columns first, then the fields of structs, one level down."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    found, nested = [], []
    for name in names:
        cell = Cell(name, plain_key(name), f"row[{name!r}]", tuple(row.get(name) for row in rows))
        found.append(cell)
        if cell.kind == "struct":
            nested += list(_fields(cell))
    return found + nested


def _fields(cell: Cell) -> Iterator[Cell]:
    structs = [value for value in cell.values if isinstance(value, Mapping)]
    keys = list(dict.fromkeys(key for struct in structs for key in struct if isinstance(key, str)))
    whole = len(structs) == len(cell.values) and all(key in struct for struct in structs for key in keys)
    for key in keys:
        access = f"{cell.access}[{key!r}]" if whole else f"({cell.access} or {{}}).get({key!r})"
        values = tuple(value.get(key) if isinstance(value, Mapping) else None for value in cell.values)
        yield Cell(f"{cell.name}.{key}", plain_key(key), access, values)


def plain_key(name: str) -> str:
    """``Chosen Response`` and ``chosenResponse`` as ``chosen_response``."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\s.\-_]+", "_", spaced).lower()


def is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value in ([], {})


def find(cells: Iterable[Cell], keys: Sequence[str], *kinds: Kind, taken: Iterable[str] = ()) -> Cell | None:
    """The cell whose key comes first in ``keys``; a column before a field of a struct."""
    out = set(taken)
    usable = [cell for cell in cells if cell.name not in out and (not kinds or cell.kind in kinds)]
    for key in keys:
        if found := next((cell for cell in usable if cell.key == key and cell.present), None):
            return found
    return None


def parsed(text: str) -> Any:
    """What JSON or a Python literal says: a list or a dict; else None."""
    stripped = text.strip()
    if not stripped.startswith(("[", "{")):
        return None
    try:
        value = json.loads(stripped)
    except ValueError:
        try:
            value = ast.literal_eval(stripped)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return None
    return value if isinstance(value, list | dict) else None


def parser_of(texts: Sequence[str]) -> str | None:
    """``json.loads`` or ``ast.literal_eval``, whichever reads all of ``texts``; None if neither does."""
    for name, read in (("json.loads", json.loads), ("ast.literal_eval", ast.literal_eval)):
        try:
            if texts and all(isinstance(read(text.strip()), list | dict) for text in texts):
                return name
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
    return None


def _kind(value: Any) -> Kind:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "struct"
    return "list" if isinstance(value, list | tuple) else "number"
