"""Lengths in tokens, by a model's own tokenizer, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlintern.tools.data.column_statistics import describe_lengths
from mlintern.tools.data.inspection_results import Lengths
from mlintern.tools.data.messages import MessageColumn
from mlintern.tools.data.table import ROW, Table
from mlintern.tools.errors import BadInput, MissingDependency

SAMPLE = 2_000


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer (``tokenizer.json``) in ``folder``.

    Raises:
        BadInput: there is none, or it is damaged.
        MissingDependency: the package ``tokenizers`` is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingDependency(
            "Counting tokens needs the package `tokenizers`.", next_step='pip install "mlintern[train]"'
        ) from error
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise BadInput(
            f"{folder} has no tokenizer.json, so tokens cannot be counted.",
            next_step="Give a folder saved with a fast tokenizer, or leave the model out (characters are counted).",
        )
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        readable = "model" in json.loads(text)
    except (ValueError, TypeError):
        readable = False
    if not readable:
        raise BadInput(f"{file} is not a tokenizer.", next_step="Save the tokenizer again.")
    return Tokenizer.from_str(text)


def token_lengths(table: Table, tokenizer: Any, *, messages: list[MessageColumn]) -> dict[str, Lengths]:
    """Tokens by column, for texts and for the contents of conversations (template tokens come on top)."""
    expressions = {column.name: column.sql for column in table.columns if column.kind == "text"}
    expressions |= {
        item.column.name: f"array_to_string(list_transform({item.items}, lambda m: {item.content('m')}), '\n')"
        for item in messages
    }
    if not expressions:
        return {}
    step = table.rows // SAMPLE + 1
    keep = f" WHERE hash({ROW}) % {step} = 0" if step > 1 else ""
    rows = table.query(f"SELECT {', '.join(expressions.values())} FROM {table.scan}{keep}")
    found = {}
    for position, name in enumerate(expressions):
        texts = [row[position] for row in rows if row[position] is not None]
        encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
        lengths = describe_lengths("tokens", [len(item.ids) for item in encoded])
        if lengths is not None:
            found[name] = lengths
    return found
