"""What each outside source did: the part that every networked result shares.

A networked answer is never a bare list. It says per source what happened and when to ask again, so that
"rate-limited" never reads as "nothing found".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, Field

from mlintern.tools.errors import MlinternError, NotFound, ServiceError

Status = Literal["ok", "partial", "rate_limited", "not_found", "blocked", "offline", "error"]
SourceStatus = Literal["ok", "rate_limited", "not_found", "blocked", "offline", "error"]

_FROM_WORST: tuple[SourceStatus, ...] = ("rate_limited", "offline", "blocked", "error", "not_found")
"""Which status a result gets when every source failed: the one that tells best what to do next comes first."""


class SourceReport(BaseModel):
    """What one source did for one request."""

    name: str
    status: SourceStatus
    http_status: int | None = Field(default=None, description="What it answered with; null if it did not answer.")
    retry_after_seconds: float | None = Field(default=None, description="When to ask again, if known.")
    message: str = Field(default="", description="What went wrong and what to do about it; empty if nothing did.")


class NetworkedResult(BaseModel):
    """Base of every result that came over the network."""

    status: Status = Field(
        description="ok: every source answered. partial: some did, see sources. Anything else: none did, and "
        "an empty result says nothing about what exists."
    )
    sources: list[SourceReport] = Field(description="What each source did, in the order asked.")


def answered(name: str, *, http_status: int | None = 200) -> SourceReport:
    """The report of a source that answered."""
    return SourceReport(name=name, status="ok", http_status=http_status)


def failed(name: str, error: MlinternError) -> SourceReport:
    """The report of a source that raised ``error``."""
    if isinstance(error, ServiceError):
        wait = error.retry_after_seconds
        return SourceReport(
            name=name,
            status=_status(error),
            http_status=error.http_status,
            retry_after_seconds=None if wait is None else round(wait, 1),
            message=str(error),
        )
    if isinstance(error, NotFound):
        return SourceReport(name=name, status="not_found", http_status=error.http_status, message=str(error))
    return SourceReport(name=name, status="error", message=str(error))


def overall(sources: Iterable[SourceReport]) -> Status:
    """The status of a result put together from ``sources`` that were asked side by side."""
    statuses = [source.status for source in sources]
    if not statuses or all(status == "ok" for status in statuses):
        return "ok"
    if "ok" in statuses:
        return "partial"
    return next(status for status in _FROM_WORST if status in statuses)


def _status(error: ServiceError) -> SourceStatus:
    for status in _FROM_WORST:
        if error.status == status:
            return status
    return "error"
