"""The log stream of Hugging Face Jobs, read in pieces that neither lose nor repeat a line.

The stream always starts over from the first line, and breaks off at will. Its events carry a timestamp each, which
`huggingface_hub` does not pass on: so it is read here. A cursor is the timestamp of the last line that was seen, and
how many lines with that same timestamp were.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
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
    """New lines at ``url`` since ``cursor``; an empty chunk if there are none, or nothing was ever logged.

    Raises:
        Offline: no answer, or it broke off before anything new came. Blocked: the token may not read it.
        RateLimited: asked to wait.
    """
    seen = _Seen.parse(cursor)
    stream = None
    if seen.timestamp:
        stream = await _read(url, token, f"?tail={TAIL}", seen, transport)
        if not stream.events or stream.events[0][0] >= seen.timestamp:  # it does not reach back to what was seen
            stream = None
    if stream is None:
        stream = await _read(url, token, "", seen, transport)
    chunk = seen.chunk(stream.events, complete=stream.whole)
    if not chunk.data and not stream.whole:
        raise Offline("The log stream broke off.", service="huggingface", next_step="Ask again in a moment.")
    return chunk


@dataclass
class _Stream:
    """What came of a stream: (timestamp, line) each, and whether that is all there is at this moment."""

    events: list[tuple[str, str]] = field(default_factory=list)
    whole: bool = False


class _Seen:
    """How far a reader has come."""

    def __init__(self, timestamp: str, count: int) -> None:
        self.timestamp = timestamp
        self.count = count

    @classmethod
    def parse(cls, cursor: str | None) -> _Seen:
        timestamp, _, count = (cursor or "").partition("#")
        return cls(timestamp, int(count or 0))

    def chunk(self, events: list[tuple[str, str]], *, complete: bool) -> LogChunk:
        lines: list[str] = []
        timestamp, count, met = self.timestamp, self.count, 0
        for at, line in events:
            if at < self.timestamp:
                continue
            if at == self.timestamp:
                met += 1
                if met <= self.count:
                    continue
            if at >= timestamp:
                count = count + 1 if at == timestamp else 1
                timestamp = at
            lines.append(line)
        data = "".join(f"{line}\n" for line in lines).encode()
        return LogChunk(data, f"{timestamp}#{count}" if timestamp else "", complete)


async def _read(
    url: str, token: str | None, query: str, seen: _Seen, transport: httpx.AsyncBaseTransport | None
) -> _Stream:
    """The stream, to its end or until it falls silent."""
    import anyio
    import httpx

    headers = {"authorization": f"Bearer {token}"} if token else {}
    stream = _Stream()
    size = 0
    end = anyio.current_time() + TOTAL_SECONDS
    try:
        with anyio.CancelScope(deadline=end) as scope:
            async with (
                httpx.AsyncClient(transport=transport, timeout=TOTAL_SECONDS, follow_redirects=False) as client,
                client.stream("GET", url + query, headers=headers) as answer,
            ):
                if not _has_log(answer):
                    return _Stream(whole=True)
                async for text in answer.aiter_lines():
                    scope.deadline = min(end, anyio.current_time() + IDLE_SECONDS)
                    if not text.startswith("data: {"):
                        continue
                    event = json.loads(text[6:])
                    if STARTED.fullmatch(event["data"].strip()):
                        continue
                    stream.events.append((event["timestamp"], event["data"].rstrip("\n")))
                    size += len(text)
                    if size > MAX_BYTES and event["timestamp"] > seen.timestamp:
                        return stream
                stream.whole = True
        if scope.cancelled_caught:  # silent since a while: what came is all; but silence from the start says nothing
            stream.whole = bool(scope.deadline < end)
    except (httpx.ReadError, httpx.RemoteProtocolError, json.JSONDecodeError):
        return stream  # broken off: what came is right, and there may be more
    except httpx.TransportError as error:
        raise Offline(f"The log cannot be reached: {type(error).__name__}.", service="huggingface") from error
    return stream


def _has_log(answer: httpx.Response) -> bool:
    status = answer.status_code
    if status in (404, 409):  # not started yet, or nothing was ever logged
        return False
    if status == 429:
        raise RateLimited("Hugging Face asks to wait.", service="huggingface", http_status=status)
    if status in (401, 403):
        raise Blocked("The token may not read this job's log.", service="huggingface", http_status=status)
    if status >= 400:
        raise ServiceError(f"The log cannot be read ({status}).", service="huggingface", http_status=status)
    return True
