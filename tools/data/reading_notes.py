"""What happens to text when it is read as a table, and is seen nowhere afterwards."""

from __future__ import annotations

import csv
import io
from collections import Counter

from mlintern.tools.data.local_files import LocalSplit
from mlintern.tools.data.packed import delimiter_of, open_bytes

MISSING = (
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
"""What pandas, and so `datasets`, reads as missing in a CSV, beside the empty cell."""
MOST_ROWS = 200_000
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def reading_notes(split: LocalSplit) -> list[tuple[str, str]]:
    """(kind, text) for separators, fields and cells that are read otherwise than one might think."""
    if split.field is not None:
        return [
            (
                "rows_in_field",
                f"The rows lie under {split.field!r}; the script loads them with field={split.field!r}. Without it"
                " `datasets` sees one row.",
            )
        ]
    return _csv_notes(split) if split.format == "csv" else []


def _csv_notes(split: LocalSplit) -> list[tuple[str, str]]:
    delimiter = delimiter_of(split.files[0])
    notes = []
    if delimiter in SEPARATORS and not split.files[0].name.lower().endswith(".tsv"):
        notes.append(
            (
                "separator",
                f"The cells are separated by {SEPARATORS[delimiter]}; the script loads them with sep={delimiter!r}; "
                "without it `datasets` sees one column.",
            )
        )
    for column, words in _read_as_missing(split, delimiter).items():
        told = ", ".join(f"{word!r} ({count})" for word, count in words.most_common(4))
        notes.append(
            (
                "read_as_missing",
                f"Cells of {column!r} say {told}; `datasets` reads these words as missing, not as text. If they are"
                " text, save the data as JSON lines or parquet.",
            )
        )
    return notes


def _read_as_missing(split: LocalSplit, delimiter: str) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    words = frozenset(MISSING)
    for file in split.files:
        try:
            with io.TextIOWrapper(open_bytes(file), encoding="utf-8-sig", newline="") as stream:
                reader = csv.reader(stream, delimiter=delimiter)
                header = next(reader, [])
                for number, row in enumerate(reader):
                    if number >= MOST_ROWS:
                        break
                    for name, cell in zip(header, row, strict=False):
                        if cell in words:
                            found.setdefault(name, Counter())[cell] += 1
        except (UnicodeDecodeError, csv.Error, OSError):
            continue
    return found
