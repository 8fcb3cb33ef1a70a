"""Cursors of paged results: opaque to the caller, bound to the request that they continue. The only codec."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from mlintern.tools.errors import BadInput

AGAIN = "Pass next_cursor of the page before unchanged, or leave it out to start again."


def make_cursor(place: Sequence[str | int | float | None], request: str) -> str:
    """A cursor that continues ``request``, any text that names tool and filters, at ``place``."""
    return base64.urlsafe_b64encode(json.dumps([_mark(request), *place]).encode()).decode().rstrip("=")


def read_cursor(cursor: str, *, tool: str, request: str, shape: tuple[type, ...], otherwise: str = "") -> list[Any]:
    """The place that ``cursor`` stands for.

    Args:
        shape: the types of the place's values; ``float`` takes an integer too, an ``int`` is at least 0.
        otherwise: what to say of a cursor that belongs to another request.

    Raises:
        BadInput: it is no cursor of ``tool``, or of another request.
    """
    try:
        mark: Any
        place: list[Any]
        mark, *place = json.loads(base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
        fits = len(place) == len(shape) and all(map(_is, place, shape))
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"The cursor is not one of {tool}.", next_step=AGAIN) from error
    if mark != _mark(request):
        raise BadInput(otherwise or f"The cursor belongs to another request of {tool}.", next_step=AGAIN)
    if not fits:
        raise BadInput(f"The cursor is not one of {tool}.", next_step=AGAIN)
    return place


def _mark(request: str) -> str:
    return hashlib.sha256(request.encode(errors="surrogatepass")).hexdigest()[:8]


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return isinstance(value, kind)
