"""Opaque cursors, and what they point at: one JSON file for each search or walk under way."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlintern.common.files import write_json_durably
from mlintern.tools.errors import BadInput


def encode(kind: str, state_id: str, place: int) -> str:
    """A cursor of ``kind`` ("search", "walk") at ``place`` of the state ``state_id``."""
    return base64.urlsafe_b64encode(f"{kind} {state_id} {place}".encode()).decode().rstrip("=")


def decode(kind: str, cursor: str) -> tuple[str, int]:
    """State id and place of a cursor of ``kind``.

    Raises:
        BadInput: it is not one.
    """
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        found, state_id, place = text.split(" ")
        if found != kind or not state_id.isalnum() or int(place) < 0:
            raise ValueError
        return state_id, int(place)
    except (ValueError, binascii.Error) as error:
        raise BadInput(
            f"{cursor[:60]!r} is not a cursor of this tool.",
            next_step="Pass next_cursor of an earlier result unchanged, or leave cursor out to begin anew.",
        ) from error


def load(folder: Path, state_id: str) -> dict[str, Any]:
    """The state behind a cursor.

    Raises:
        BadInput: it is gone.
    """
    try:
        state = json.loads((folder / f"{state_id}.json").read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(
            "What this cursor points at is no longer in the workspace.", next_step="Ask again without a cursor."
        ) from error
    return dict(state)


def save(folder: Path, state_id: str, state: Mapping[str, Any]) -> None:
    """Keep ``state`` for a later cursor."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_json_durably(folder / f"{state_id}.json", state)
