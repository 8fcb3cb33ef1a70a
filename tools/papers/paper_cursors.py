"""What a cursor of a search or a walk points at: one JSON file for each that is under way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlintern.common.files import write_json_durably
from mlintern.tools.errors import BadInput


def load(folder: Path, state_id: str) -> dict[str, Any]:
    """The state behind a cursor.

    Raises:
        BadInput: it is gone.
    """
    if not state_id.isalnum():
        raise BadInput("The cursor was changed.", next_step="Pass next_cursor of an earlier result unchanged.")
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
