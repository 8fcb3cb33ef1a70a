"""What a cursor of a search or a walk points at: one JSON file for each that is under way."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from mlintern.common.files import exclusive_lock, write_json_durably
from mlintern.tools.errors import BadInput, Conflict

_POLL_SECONDS, _POLLS = 0.05, 1_000
"""50 s: a page of a walk takes 40 at most."""


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


@contextlib.asynccontextmanager
async def held(folder: Path, state_id: str) -> AsyncIterator[None]:
    """Hold the state ``state_id`` against other servers on the workspace, which would ask and write the same page.

    Raises:
        Conflict: another server works on it for longer than a page takes.
    """
    import anyio

    for _ in range(_POLLS):
        with exclusive_lock(folder / f"{state_id}.lock", blocking=False) as got:
            if got:
                yield
                return
        # The other server lets go in its own time, which the clock passed in does not move.
        await anyio.sleep(_POLL_SECONDS)
    raise Conflict(
        "Another server reads the next page of this cursor.", next_step="Pass the cursor again in a minute."
    )


def save(folder: Path, state_id: str, *, state: Mapping[str, Any]) -> None:
    """Keep ``state`` for a later cursor."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_json_durably(folder / f"{state_id}.json", state)
