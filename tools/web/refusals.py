"""What an answer means: which error of the tree a status, a header or a robot page stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from xml.parsers import expat

from mlintern.common.text import cut
from mlintern.tools.errors import Blocked, NotFound, ServiceError
from mlintern.tools.web.services import Service

TRANSIENT = frozenset({500, 502, 503, 504})
"""Statuses that may be gone when asked again."""

_ROBOT_PAGE = re.compile(
    rb"access denied|captcha|are you a (?:ro)?bot|unusual traffic|attention required|just a moment"
    rb"|verify you are human",
    re.IGNORECASE,
)
_TITLE = re.compile(rb"<(title|h1)[^>]*>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_SMALL_PAGE = 16_384
"""A page shorter than this that speaks of robots is about them only if it is one; a paper is longer."""


def is_passing(service: Service, status: int, *, headers: Mapping[str, str]) -> bool:
    """Whether an error may be gone when asked again: by its status, and by its code where the service gives codes."""
    if status == 500 and service.later_code:
        return headers.get("x-error-code", "").startswith(service.later_code)
    return status in TRANSIENT


@contextmanager
def shape_errors(service: str, opening: str) -> Iterator[None]:
    """What reading the fields of an answer raises if it has others than are documented, as `ServiceError`."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ServiceError(
            f"Something answered, but not with the fields that {opening} documents.",
            service=service,
            next_step="Try again; if it stays so, check the proxy.",
        ) from error


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait by ``Retry-After`` (a number or a date) or by Hugging Face's ``RateLimit: ...;t=SECONDS``."""
    value = headers.get("retry-after", "").strip()
    if value:
        try:
            return max(0.0, float(value))
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - now)
        except ValueError:
            return None
    window = re.search(r"\bt=(\d+)", headers.get("ratelimit", ""))
    return float(window.group(1)) if window else None


def is_page(body: bytes) -> bool:
    """Whether an answer is an HTML page, by what it holds rather than by what it calls itself."""
    start = body[:200].lstrip().lower()
    xml_page = start.startswith(b"<?xml") and b"<html" in body[:600].lower()
    return start.startswith((b"<!doctype html", b"<html")) or xml_page


def is_robot_page(body: bytes) -> bool:
    """Whether an HTML page keeps robots out: its title or heading says so, or all of a short page does."""
    if len(body) < _SMALL_PAGE and _ROBOT_PAGE.search(body):
        return True
    return any(_ROBOT_PAGE.search(found.group(2)) for found in _TITLE.finditer(body[:_SMALL_PAGE]))


def check_kind(service: Service, body: bytes, *, expect: str | None, status: int) -> None:
    """Refuse a successful answer that is not what was asked for, or only a part of it, before it is cached.

    Raises:
        Blocked: a page that keeps robots out.
        ServiceError: a page where data was expected, or data that ends too early.
    """
    if not is_page(body):
        flaw = _flaw(body, expect)
        if flaw:
            raise ServiceError(
                f"{service.opening} answered with data that is damaged or cut: {flaw}.",
                service=service.name,
                http_status=status,
                next_step="Try again later.",
            )
        return
    if is_robot_page(body):
        raise Blocked(
            f"{service.opening} shows a page that keeps robots out instead of an answer.",
            service=service.name,
            http_status=status,
            next_step="Open the address in a browser, or ask again later from another network.",
        )
    if expect in ("json", "xml"):
        raise ServiceError(
            f"{service.opening} answered with a web page instead of {expect.upper()}.",
            service=service.name,
            http_status=status,
            next_step=f"Check {service.base_variable}, or try again later." if service.base_variable else "",
        )


def is_limit(service: Service, status: int, *, body: bytes) -> bool:
    """Whether an answer says "too often": 429, or a 403 of a service that says it so and names no invalid input."""
    return status == 429 or (status == 403 and service.forbidden_is_limit and b"nvalid" not in body[:2000])


def raise_for_status(service: Service, status: int, *, body: bytes, secret: str) -> None:
    """Raise the error that ``status`` stands for; 429 and what is worth a retry are the caller's.

    Raises:
        NotFound: 404 and 410.
        Blocked: 401, 403 and 451.
        ServiceError: any other status that is not a success.
    """
    if 200 <= status < 300:
        return
    said = reason(body)
    if secret:
        said = said.replace(secret, "[redacted]")
    because = f": {said}" if said else "."
    if status in (404, 410):
        advice = "Check the name or the id."
        raise NotFound(f"{service.opening} does not have it{because}", http_status=status, next_step=advice)
    if status in (401, 403, 451):
        raise Blocked(
            f"{service.opening} refuses the request ({status}){because}",
            service=service.name,
            http_status=status,
            next_step=_access_advice(service),
        )
    raise ServiceError(
        f"{service.opening} answered {status}{because}",
        service=service.name,
        http_status=status,
        next_step="Try again later." if status in TRANSIENT else "",
    )


def reason(body: bytes) -> str:
    """The reason that an error answer gives, one line; empty for a web page."""
    if is_page(body):
        return ""
    text = body[:4000].decode("utf-8", "replace")
    try:
        said = json.loads(body[:100_000])
    except (ValueError, RecursionError):
        summary = re.search(r"<summary>(.*?)</summary>", text, re.DOTALL)  # arXiv explains itself in an Atom entry
        found = summary.group(1) if summary else text if not text.lstrip().startswith("<") else ""
    else:
        keys = ("error", "message", "detail")
        found = next((str(said[key]) for key in keys if said.get(key)), "") if isinstance(said, dict) else ""
    line = " ".join(found.split())
    return cut(line, 300)


def _flaw(body: bytes, expect: str | None) -> str:
    """What is wrong with ``body`` as JSON or XML; empty if nothing is."""
    try:
        if expect == "json":
            json.loads(body)
        elif expect == "xml":
            expat.ParserCreate().Parse(body, True)
    except (ValueError, RecursionError, expat.ExpatError) as error:
        return str(error)
    return ""


def _access_advice(service: Service) -> str:
    if not service.token_variable:
        return "Waiting does not help; use another source."
    return f"Check that {service.token_variable} is set, valid and allowed to read this."
