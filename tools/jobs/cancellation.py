"""That the end of a job was asked for, and why: kept in its folder, since backends are slow and keep no reason.

Ray cannot end a job that still waits for its turn; until then, a poll says that it will be ended.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from mlintern.common.files import read_json, write_json_durably

FILE = "cancellation.json"


@dataclass(frozen=True)
class Cancellation:
    """``at`` is in Unix seconds."""

    at: float
    reason: str


def remember(folder: Path, *, reason: str, now: float) -> None:
    """Write the first request down; a later one changes nothing."""
    if asked(folder) is None:
        write_json_durably(folder / FILE, asdict(Cancellation(at=now, reason=reason)))


def asked(folder: Path) -> Cancellation | None:
    """The request that was made and accepted, or None."""
    found = read_json(folder / FILE)
    return None if found is None else Cancellation(**found)
