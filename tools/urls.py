"""Addresses that others wrote, taken apart: one that is none is refused by name instead of raising ``ValueError``."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from mlintern.tools.errors import BadInput


def split_url(text: str, *, next_step: str) -> SplitResult:
    """The parts of ``text``, whose host and port can be read too.

    Raises:
        BadInput: it is no address, such as ``http://[::x`` or one with a port that is no number.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port, parts.hostname
    except ValueError as error:
        raise BadInput(f"{text!r:.200} is no address: {error}.", next_step=next_step) from None
    return parts
