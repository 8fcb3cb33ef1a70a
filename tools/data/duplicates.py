"""Rows that repeat: exactly, over all rows; nearly, in a sample."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from pathlib import Path

from mlintern.tools.data.inspection_results import Duplicates
from mlintern.tools.data.messages import MessageColumn
from mlintern.tools.data.sql_text import literal
from mlintern.tools.data.table import ROW, Column, Table

SAMPLE = 10_000
TOKENS = 400
SHINGLE = 5
SLOTS, BANDS = 64, 16
SIMILAR = 0.8
ROWS_A_PASS = 2_000_000


def find_duplicates(table: Table, conversations: list[MessageColumn], *, scratch: Path) -> Duplicates:
    """Exact duplicates by a 64-bit hash of all columns; near ones by MinHash over word 5-grams of a sample.

    Hashes go to a file first and are counted in passes of two million, so that memory does not grow with the rows.
    The near rate counts pairs within the sample only and is therefore a lower bound for the whole.
    """
    exact = count_exact(table, scratch)
    texts = _sample(table, conversations)
    near, pair = near_duplicates([text for _, text in texts])
    return Duplicates(
        exact_rows=exact,
        exact_rate=round(exact / table.rows, 6) if table.rows else 0.0,
        near_rate=round(near / len(texts), 4) if texts else None,
        near_sampled_rows=len(texts),
        near_example=[texts[i][0] for i in pair] if pair else None,
        method=f"exact: 64-bit hash over all columns, all rows; near: MinHash over word {SHINGLE}-grams, Jaccard "
        f">= {SIMILAR}, a sample of {len(texts)} rows",
    )


def count_exact(table: Table, scratch: Path) -> int:
    """Rows that repeat an earlier row in every column.

    The narrow columns (numbers, truth values) are looked at first: where they alone tell all rows apart, as an id
    does, no text has to be read.
    """
    narrow = [column for column in table.columns if column.kind in ("number", "bool")]
    if narrow and not _repeats(table, narrow, scratch):
        return 0
    return _repeats(table, list(table.columns), scratch)


def _repeats(table: Table, columns: list[Column], scratch: Path) -> int:
    """Rows that repeat an earlier row in ``columns``."""
    if not columns or not table.rows:
        return 0
    names = ", ".join(column.sql for column in columns)
    file = literal(str(scratch / "hashes.parquet"))
    table.query(
        f"COPY (SELECT hash({names}) AS h FROM {table.scan}) TO {file} (FORMAT parquet, COMPRESSION uncompressed)"
    )
    passes = 1 + table.rows // ROWS_A_PASS
    return sum(
        int(table.query(f"SELECT count(*) - count(DISTINCT h) FROM {file} WHERE h % {passes} = {part}")[0][0])
        for part in range(passes)
    )


def _sample(table: Table, conversations: list[MessageColumn]) -> list[tuple[int, str]]:
    expressions = text_expressions(table.columns, conversations)
    if not expressions:
        return []
    keep = f" WHERE hash({ROW}) % {table.rows // SAMPLE + 1} = 0" if table.rows > SAMPLE else ""
    joined = f"left(concat_ws(' ', {', '.join(expressions)}), {TOKENS * 12})"
    return [(number, text) for number, text in table.query(f"SELECT {ROW}, {joined} FROM {table.scan}{keep}") if text]


def text_expressions(columns: tuple[Column, ...], conversations: list[MessageColumn]) -> list[str]:
    """SQL for the text of a row: text columns and the contents of messages."""
    found = [column.sql for column in columns if column.kind == "text"]
    for item in conversations:
        found.append(f"array_to_string(list_transform({item.items}, lambda m: {item.content('m')}), ' ')")
    return found


def near_duplicates(texts: list[str]) -> tuple[int, tuple[int, int] | None]:
    """How many texts have an earlier near copy, and one such pair (indices).

    One-permutation MinHash (Li, Owen and Zhang 2012) with `SLOTS` slots, banded; candidates are confirmed by the
    Jaccard similarity of their shingle sets.
    """
    buckets: dict[tuple[int, tuple[int, ...]], int] = {}
    shingles: list[frozenset[int]] = []
    found, pair = 0, None
    for index, text in enumerate(texts):
        mine = _shingles(text)
        shingles.append(mine)
        if not mine:
            continue
        partner = None
        for band in _bands(mine):
            other = buckets.setdefault(band, index)
            if partner is None and other != index and _jaccard(mine, shingles[other]) >= SIMILAR:
                partner = other
        if partner is not None:
            found += 1
            pair = pair or (partner, index)
    return found, pair


def _shingles(text: str) -> frozenset[int]:
    words = re.findall(r"\w+", text.lower())[:TOKENS]
    if len(words) < SHINGLE:
        return frozenset([zlib.crc32(" ".join(words).encode())]) if words else frozenset()
    return frozenset(zlib.crc32(" ".join(words[i : i + SHINGLE]).encode()) for i in range(len(words) - SHINGLE + 1))


def _bands(shingles: frozenset[int]) -> list[tuple[int, tuple[int, ...]]]:
    slots: dict[int, int] = defaultdict(lambda: 2**32)
    for shingle in shingles:
        slot = shingle % SLOTS
        slots[slot] = min(slots[slot], shingle)
    width = SLOTS // BANDS
    bands = [(band, tuple(slots[band * width + i] for i in range(width))) for band in range(BANDS)]
    return [band for band in bands if any(value != 2**32 for value in band[1])]


def _jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
