"""The log stream of Hugging Face Jobs, read in pieces that neither lose nor repeat a line.

The stream always starts over from the first line, and breaks off at will. Its events carry a timestamp each, which
`huggingface_hub` does not pass on: so it is read here. A cursor is the timestamp of the last line that was seen, and
how many lines with that same timestamp were.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from mlintern.tools.errors import Blocked, Offline, RateLimited, ServiceError
from mlintern.tools.jobs.spec import LogChunk

if TYPE_CHECKING:
    import httpx

TAIL = 5_000
"""Lines asked for when it is known where to go on; if that is too few, the whole log is."""

IDLE_SECONDS = 1.5
"""The stream of a running job never ends: after so long without a line, what came is all there is for now."""

TOTAL_SECONDS = 20.0
MAX_BYTES = 8 << 20
STARTED = re.compile(r"={3,} Job started at .* ={3,}")
"""A line that the service adds at every (re)start of the stream; not the job's own."""


async def read_logs(
    url: str, *, token: str | None, cursor: str | None, transport: httpx.AsyncBaseTransport | None = None
) -> LogChunk:
    """New lines at ``url`` since ``cursor``; an empty chunk if there are none, or the job has not started.

    Raises:
        Offline: no answer. Blocked: the token may not read it. RateLimited: asked to wait.
    """
    seen = _Seen.parse(cursor)
    if seen.timestamp:
        events, reaches_back = await _events(url, token, f"?tail={TAIL}", seen, transport)
        if reaches_back:
            return seen.chunk(events)
    events, _ = await _events(url, token, "", seen, transport)
    return seen.chunk(events)


class _Seen:
    """How far a reader has come."""

    def __init__(self, timestamp: str, count: int) -> None:
        self.timestamp = timestamp
        self.count = count

    @classmethod
    def parse(cls, cursor: str | None) -> _Seen:
        timestamp, _, count = (cursor or "").partition("#")
        return cls(timestamp, int(count or 0))

    def chunk(self, events: list[tuple[str, str]]) -> LogChunk:
        lines: list[str] = []
        timestamp, count, met = self.timestamp, self.count, 0
        for at, line in events:
            if at < self.timestamp:
                continue
            if at == self.timestamp:
                met += 1
                if met <= self.count:
                    continue
            count = count + 1 if at == timestamp else 1
            timestamp = at
            lines.append(line)
        data = "".join(f"{line}\n" for line in lines).encode()
        return LogChunk(data, f"{timestamp}#{count}" if timestamp else "")


async def _events(
    url: str, token: str | None, query: str, seen: _Seen, transport: httpx.AsyncBaseTransport | None
) -> tuple[list[tuple[str, str]], bool]:
    """(timestamp, line) of the stream as far as it comes at once, and whether it reaches back to what was seen."""
    import anyio
    import httpx

    headers = {"authorization": f"Bearer {token}"} if token else {}
    events: list[tuple[str, str]] = []
    size = 0
    timeout = httpx.Timeout(30.0, read=IDLE_SECONDS)
    try:
        with anyio.move_on_after(TOTAL_SECONDS):
            async with (
                httpx.AsyncClient(transport=transport, timeout=timeout, follow_redirects=False) as client,
                client.stream("GET", url + query, headers=headers) as answer,
            ):
                _refuse(answer)
                async for text in answer.aiter_lines():
                    if not text.startswith("data: {"):
                        continue
                    event = json.loads(text[6:])
                    if STARTED.fullmatch(event["data"].strip()):
                        continue
                    events.append((event["timestamp"], event["data"].rstrip("\n")))
                    size += len(text)
                    if size > MAX_BYTES and event["timestamp"] > seen.timestamp:
                        break
    except (httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.ReadError, json.JSONDecodeError) as error:
        if not events and isinstance(error, httpx.ReadError):
            raise Offline("The log stream broke off.", service="huggingface") from error
    except httpx.TransportError as error:
        raise Offline(f"The log cannot be reached: {type(error).__name__}.", service="huggingface") from error
    return events, bool(events) and events[0][0] <= seen.timestamp


def _refuse(answer: httpx.Response) -> None:
    status = answer.status_code
    if status in (404, 409):  # not started yet, or nothing was ever logged
        return
    if status == 429:
        raise RateLimited("Hugging Face asks to wait.", service="huggingface", http_status=status)
    if status in (401, 403):
        raise Blocked("The token may not read this job's log.", service="huggingface", http_status=status)
    if status >= 400:
        raise ServiceError(f"The log cannot be read ({status}).", service="huggingface", http_status=status)
