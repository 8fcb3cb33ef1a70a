"""The log stream of Hugging Face Jobs, read in pieces that neither lose nor repeat a line.

The stream always starts over from the first line, and breaks off at will. Its events carry a timestamp each, which
`huggingface_hub` does not pass on: so it is read here. A cursor is the timestamp of the last line that was seen, and
how many lines with that same timestamp were; what follows that line in the stream is new.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlintern.tools.errors import Blocked, Offline, RateLimited, ServiceError
from mlintern.tools.jobs.backend import LogChunk
from mlintern.tools.telemetry_marks import marked

if TYPE_CHECKING:
    import httpx2

TAIL = 5_000
"""Lines asked for when it is known where to go on; if that is too few, the whole log is."""

IDLE_SECONDS = 1.5
"""The stream of a running job never ends: after so long without a line, what came is all there is for now."""

ENDED_SECONDS = 5.0
"""The same for a job that is over: so long `HfApi.fetch_job_logs` of `huggingface_hub` 2.4 waits for buffered lines.

Less would take a pause for the end, and what comes after it, such as the evaluation, would be lost."""

TOTAL_SECONDS = 20.0
MAX_BYTES = 8 << 20
"""New lines taken in one go."""

MAX_EVENT_BYTES = 64 << 20
"""A longer event is passed over."""

STARTED = re.compile(r"={3,} Job started at .* ={3,}")
"""A line that the service adds at every (re)start of the stream; not the job's own."""


async def read_logs(
    url: str,
    *,
    token: str | None,
    cursor: str | None,
    over: bool = False,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> LogChunk:
    """New lines at ``url`` since ``cursor``; an empty chunk if there are none, or nothing was ever logged.

    A job that is ``over`` is given more time to be silent, until the script's last row was seen.

    Raises:
        Offline: no answer, or it broke off before anything new came. Blocked: the token may not read it.
        RateLimited: asked to wait.
    """
    seen = _Seen.parse(cursor)
    new = None
    if seen.timestamp:
        stream = await _read(url, token, f"?tail={TAIL}", seen, over=over, transport=transport)
        if stream.events and stream.events[0][0] != seen.timestamp:  # else it may not reach back to what was seen
            new = seen.after(stream.events)
    if new is None:
        stream = await _read(url, token, "", seen, over=over, transport=transport)
        new = seen.after(stream.events)
    if new is None:
        new = seen.later(stream.events) if stream.whole else []
    chunk = seen.chunk(new, complete=stream.whole)
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

    def after(self, events: list[tuple[str, str]]) -> list[tuple[str, str]] | None:
        """What follows the last line that was seen, in the order of the stream; None if the stream does not hold it.

        The order is the stream's, not that of the timestamps: a node whose clock is set back writes on below them.
        """
        if not self.timestamp:
            return events
        met = 0
        for index, (at, _) in enumerate(events):
            met += at == self.timestamp
            if met == self.count:
                return events[index + 1 :]
        return None

    def later(self, events: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """What is later than the last line seen, for a stream that the service has cut at its beginning."""
        return [event for event in events if event[0] > self.timestamp]

    def chunk(self, new: list[tuple[str, str]], *, complete: bool) -> LogChunk:
        """``new`` as a chunk; its cursor counts the lines that bear the last one's timestamp."""
        timestamp, count = self.timestamp, self.count
        if new:
            timestamp = new[-1][0]
            among = sum(at == timestamp for at, _ in new)
            count = among + (self.count if timestamp == self.timestamp else 0)
        data = "".join(f"{line}\n" for _, line in new).encode(errors="replace")
        return LogChunk(data, f"{timestamp}#{count}" if timestamp else "", complete)


async def _read(
    url: str,
    token: str | None,
    query: str,
    seen: _Seen,
    *,
    over: bool,
    transport: httpx2.AsyncBaseTransport | None,
) -> _Stream:
    """The stream, to its end or until it falls silent."""
    import anyio
    import httpx2

    headers = {"authorization": f"Bearer {token}"} if token else {}
    stream = _Stream()
    size, met = 0, 0
    silence = ENDED_SECONDS if over else IDLE_SECONDS
    end = anyio.current_time() + TOTAL_SECONDS
    try:
        with anyio.CancelScope(deadline=end) as scope:
            async with (
                httpx2.AsyncClient(transport=transport, timeout=TOTAL_SECONDS, follow_redirects=False) as client,
                client.stream("GET", url + query, headers=headers) as answer,
            ):
                if not _has_log(answer):
                    return _Stream(whole=True)
                async for text in _lines(answer):
                    event = _event(text)
                    if event is not None and _is_last_row(event[1]):
                        silence = IDLE_SECONDS
                    scope.deadline = min(end, anyio.current_time() + silence)
                    if event is None:
                        continue
                    stream.events.append(event)
                    if met < seen.count:
                        met += event[0] == seen.timestamp
                        continue
                    size += len(text)
                    if size > MAX_BYTES:
                        return stream
                stream.whole = True
        if scope.cancelled_caught:  # silent since a while: what came is all; but silence from the start says nothing
            stream.whole = bool(scope.deadline < end)
    except (httpx2.ReadError, httpx2.RemoteProtocolError):
        return stream  # broken off: what came is right, and there may be more
    except httpx2.TransportError as error:
        raise Offline(f"The log cannot be reached: {type(error).__name__}.", service="huggingface") from error
    return stream


async def _lines(answer: httpx2.Response) -> AsyncIterator[bytes]:
    """The whole lines of the answer. Only a newline ends one: a job's own text may hold U+2028 and its like."""
    rest = b""
    too_long = False
    async for data in answer.aiter_bytes():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield b"" if too_long else line
            too_long = False
        if len(rest) > MAX_EVENT_BYTES:
            rest, too_long = b"", True


def _is_last_row(line: str) -> bool:
    """Whether ``line`` is the row by which a script says that it is done."""
    for row in marked([line]):
        try:
            said = json.loads(row)
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict) and said.get("kind") == "end":
            return True
    return False


def _event(text: bytes) -> tuple[str, str] | None:
    """(timestamp, line) of a line of the stream that is an event of the job's own, else None."""
    if not text.startswith(b"data: {"):
        return None
    try:
        event = json.loads(text[6:])
        timestamp, line = event["timestamp"], event["data"]
    except (ValueError, KeyError, RecursionError):
        return None
    if not isinstance(timestamp, str) or not isinstance(line, str) or STARTED.fullmatch(line.strip()):
        return None
    return timestamp, line.rstrip("\n")


def _has_log(answer: httpx2.Response) -> bool:
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
