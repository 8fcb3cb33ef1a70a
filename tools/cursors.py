"""Cursors of paged results: opaque to the caller, bound to the request that they continue."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from mlintern.tools.errors import BadInput


def make_cursor(place: list[Any], request: str) -> str:
    """A cursor that continues ``request`` at ``place`` (JSON values)."""
    return base64.urlsafe_b64encode(json.dumps([place, request]).encode()).decode()


def read_cursor(cursor: str, *, tool: str, request: str, otherwise: str) -> list[Any]:
    """The place that ``cursor`` stands for.

    Args:
        otherwise: what to say of a cursor that belongs to another request.

    Raises:
        BadInput: it is no cursor of ``tool``, or of another request.
    """
    try:
        place, stated = json.loads(base64.urlsafe_b64decode(cursor.encode()))
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"The cursor is not one of {tool}.", next_step="Leave it out to start again.") from error
    if stated != request or not isinstance(place, list):
        raise BadInput(otherwise, next_step="Leave it out to start again.")
    return place
