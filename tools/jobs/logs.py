"""Logs as people and models read them: from the end, by page, or by pattern, clean, and without secrets.

Nothing here reads a log as a whole: the last lines of a log of gigabytes cost as much as those of a short one. Every
page is redacted together with what stands around it, so that a secret cut by the page's edge is still seen. Pieces of
an evaluation's samples are never shown nor found: almost any short word stands somewhere in so much base64.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlintern.common.files import open_regular
from mlintern.common.redact import redact
from mlintern.tools.errors import BadInput
from mlintern.tools.telemetry_marks import MARK, SAMPLES

BLOCK_BYTES = 1 << 18
TAIL_BYTES = 4 << 20
"""A tail looks at most this far back: lines of megabytes (a progress bar) would otherwise make it read everything."""
SEARCH_BYTES = 256 << 20
"""A search looks at this much of a log in one call."""
LINE_COST_BYTES = 64
"""What a line costs to look at, however short, in bytes that could be read instead: else a log of empty lines would
take minutes."""
CONTEXT_BYTES = 4096
BYTES_PER_CHARACTER = 4
"""At most in UTF-8; colours may take more, and then a little less is shown than was asked for."""
LINE_BYTES = 1 << 16
"""A longer line is matched by its beginning."""

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_PIECE = SAMPLES.encode()
_PLAIN = re.compile(r"[\w\s:=/,'\"<>%@#&!~`;-]*", re.ASCII)


@dataclass(frozen=True)
class Slice:
    """``text`` is bytes ``offset`` to ``next_offset`` of a log of ``total_bytes``, cleaned."""

    text: str
    offset: int
    next_offset: int
    total_bytes: int
    truncated: bool
    matches: int | None = None
    note: str = ""


def read_tail(path: Path, *, lines: int, max_chars: int, known: Sequence[str] = (), telemetry: bool = False) -> Slice:
    """The last ``lines`` lines; telemetry lines are not counted and left out unless asked for."""
    with _Log(path) as log:
        start, enough = _start_of_tail(log, lines, telemetry=telemetry)
        before, written = log.read(max(0, start - CONTEXT_BYTES), start), log.read(start, log.size)
    cut_above = start > 0 and not enough
    seen = (_last_written(line) for line in written.split(b"\n"))
    visible = b"\n".join(line for line in seen if telemetry or MARK.encode() not in line)
    room = max_chars * BYTES_PER_CHARACTER
    if len(visible) > room:  # cleaning takes longest, so that it is done to what is shown alone
        before, visible = visible[-room - CONTEXT_BYTES : -room], visible[-room:]
        cut_above = True
    shown = _cleaned(before, visible, b"", known=known).split("\n")
    while shown and not shown[-1]:
        shown.pop()
    text = "\n".join(shown[-lines:])
    if len(text) > max_chars:
        text, cut_above = text[-max_chars:], True
    note = "The beginning of what was asked for is not shown; read it with offset." if cut_above else ""
    return Slice(text, start, log.size, log.size, truncated=cut_above, note=note)


def read_page(path: Path, *, offset: int, max_chars: int, known: Sequence[str] = ()) -> Slice:
    """About ``max_chars`` from byte ``offset`` on, ended at a line's end where there is one."""
    with _Log(path) as log:
        start = log.boundary(min(offset, log.size))
        end = min(log.size, start + max_chars)
        if end < log.size:
            newline = log.read(start, end).rfind(b"\n")
            end = start + newline + 1 if newline >= 0 else log.boundary(end)
            end = end if end > start else min(log.size, start + max_chars)
        lines = log.clean(start, end, known=known).split("\n")
        if log.begins_inside_row(start):
            lines[0] = ""
    kept = "\n".join(line for line in lines if MARK not in line)
    return Slice(kept, start, end, log.size, truncated=end < log.size)


def search(
    path: Path, *, pattern: str, limit: int, max_chars: int, offset: int | None = None, known: Sequence[str] = ()
) -> Slice:
    """Lines that match the regular expression ``pattern`` (RE2 syntax; case is ignored).

    Without ``offset`` the latest matches, found from the end; with it the first ones from there on.

    Raises:
        BadInput: the pattern is not a regular expression.
    """
    matches = _matcher(pattern)
    with _Log(path) as log:
        forward = offset is not None
        first, last = (offset or 0, log.size)
        found: list[tuple[int, int]] = []
        position, room, searched = (first if forward else last), max_chars, 0
        for lines in log.lines_forward(first) if forward else log.lines_backward(last):
            hits = [
                span
                for span, text, hit in zip(lines.spans, lines.texts, matches(lines.texts), strict=True)
                if hit and _PIECE not in text
            ]
            for span in hits if forward else reversed(hits):
                found.append(span)
                room -= span[1] - span[0]
                position = span[1] if forward else span[0]
                if len(found) >= limit or room <= 0:
                    break
            else:
                searched += lines.end - lines.start + LINE_COST_BYTES * len(lines.spans)
                position = lines.end if forward else lines.start
                if searched < SEARCH_BYTES:
                    continue
            break
        texts = [
            log.clean(start, min(end, start + LINE_BYTES), known=known).rstrip("\n") for start, end in sorted(found)
        ]
    low, high = (first, position) if forward else (position, log.size)
    more = high < log.size if forward else low > 0
    note = f"Searched bytes {low} to {high} of {log.size}." if more else ""
    text = "\n".join(texts)
    if len(text) > max_chars:
        text, more = (text[:max_chars] if forward else text[-max_chars:]), True
    return Slice(text, low, high, log.size, truncated=more, matches=len(found), note=note)


def clean_text(text: str) -> str:
    """``text`` without ANSI sequences and control characters, and what a carriage return overwrote taken away."""
    text = _CONTROL.sub("", _ANSI.sub("", text)).replace("\r\n", "\n")
    if "\r" not in text:
        return text
    return "\n".join(_fold(line) for line in text.split("\n"))


def last_error(text: str) -> str | None:
    """The line that names the exception at the end of the last Python traceback in ``text``, if there is one."""
    _, mark, after = text.rpartition("Traceback (most recent call last):")
    if not mark:
        return None
    for line in after.split("\n"):
        if re.match(r"[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning|Iteration)\b", line):
            return line.strip()[:500]
    return None


@dataclass(frozen=True)
class _Lines:
    """Whole lines between two bytes of the log."""

    start: int
    end: int
    spans: list[tuple[int, int]]
    texts: list[bytes]


class _Log:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._descriptor: int | None = None

    def __enter__(self) -> _Log:
        self._descriptor = open_regular(self.path)  # None: a job that has not printed anything yet
        if self._descriptor is not None:
            self.size = os.fstat(self._descriptor).st_size
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def read(self, start: int, end: int) -> bytes:
        if self._descriptor is None or end <= start:
            return b""
        return os.pread(self._descriptor, end - start, start)

    def boundary(self, position: int) -> int:
        """The first byte at or after ``position`` that begins a character of UTF-8."""
        for index, byte in enumerate(self.read(position, min(position + 4, self.size))):
            if byte & 0xC0 != 0x80:
                return position + index
        return min(position, self.size)

    def begins_inside_row(self, start: int) -> bool:
        """Whether a telemetry row that began before ``start`` goes on there. Pieces of samples are short enough."""
        before = self.read(max(0, start - CONTEXT_BYTES), start).rpartition(b"\n")[2]
        after = self.read(start, start + len(MARK)).partition(b"\n")[0]
        return bool(before) and MARK.encode() in before + after and MARK.encode() not in after

    def clean(self, start: int, end: int, *, known: Sequence[str]) -> str:
        """The text of a range, redacted with what stands around it, decoded with errors replaced."""
        before, after = (max(0, start - CONTEXT_BYTES), start), (end, min(self.size, end + CONTEXT_BYTES))
        return _cleaned(self.read(*before), self.read(start, end), self.read(*after), known=known)

    def lines_backward(self, end: int) -> Iterator[_Lines]:
        """Blocks of whole lines, the last block first."""
        rest = b""
        position = end
        while position > 0:
            start = max(0, position - BLOCK_BYTES)
            block = self.read(start, position) + rest
            newline = block.find(b"\n") if start > 0 else -1
            if start > 0 and newline < 0 and len(block) < LINE_BYTES * 16:
                rest, position = block, start
                continue
            cut = newline + 1
            yield _split(block[cut:], start + cut)
            rest, position = block[:cut], start

    def lines_forward(self, start: int) -> Iterator[_Lines]:
        rest = b""
        position = start
        while position < self.size:
            end = min(self.size, position + BLOCK_BYTES)
            block = rest + self.read(position, end)
            begin = position - len(rest)
            newline = block.rfind(b"\n") if end < self.size else len(block) - 1
            if newline < 0 and len(block) < LINE_BYTES * 16:
                rest, position = block, end
                continue
            cut = newline + 1 if newline >= 0 else len(block)
            yield _split(block[:cut], begin)
            rest, position = block[cut:], end


def _without_pieces(data: bytes) -> bytes:
    if _PIECE not in data:
        return data
    return b"\n".join(line for line in data.split(b"\n") if _PIECE not in line)


def _cleaned(before: bytes, text: bytes, after: bytes, *, known: Sequence[str]) -> str:
    """``text``, redacted with what stands around it."""
    parts = [_ANSI.sub("", _without_pieces(part).decode(errors="replace")) for part in (before, text, after)]
    first = len(parts[0])
    return clean_text(redact("".join(parts), known=known, start=first, end=first + len(parts[1])))


def _last_written(line: bytes) -> bytes:
    """As `_fold`, before anything is decoded: of a progress bar of megabytes only its last state is looked at."""
    if b"\r" not in line:
        return line
    parts = reversed(line.split(b"\r"))
    return next((part for part in parts if clean_text(part.decode(errors="replace")).strip()), b"")


def _split(block: bytes, start: int) -> _Lines:
    spans, position = [], start
    texts = block.split(b"\n")
    if texts and not texts[-1]:
        texts.pop()
    for text in texts:
        end = min(position + len(text) + 1, start + len(block))
        spans.append((position, end))
        position = end
    return _Lines(start, start + len(block), spans, [text[:LINE_BYTES] for text in texts])


def _start_of_tail(log: _Log, lines: int, *, telemetry: bool) -> tuple[int, bool]:
    """Where the last ``lines`` lines begin, and whether they were all found within `TAIL_BYTES`."""
    wanted, position = lines, log.size
    for block in log.lines_backward(log.size):
        for (start, _), text in zip(reversed(block.spans), reversed(block.texts), strict=True):
            if telemetry or MARK.encode() not in text:
                wanted -= 1
            position = start
            if wanted == 0:
                return position, True
        if log.size - block.start >= TAIL_BYTES:
            return position, False
    return 0, True


def _fold(line: str) -> str:
    """What a terminal shows of a line with carriage returns: the last text that was written over it."""
    return next((part for part in reversed(line.split("\r")) if part.strip()), "")


def _matcher(pattern: str) -> Callable[[Sequence[bytes]], list[bool]]:
    """A function from lines to whether each matches. RE2 takes linear time whatever the pattern."""
    if not pattern.isprintable() and pattern != pattern.encode(errors="replace").decode():
        raise BadInput("The pattern holds half a character.", next_step="Write it as text.")
    if _PLAIN.fullmatch(pattern):
        needle = pattern.lower().encode()
        return lambda texts: [needle in text.lower() for text in texts]
    import pyarrow
    import pyarrow.compute

    def matches(texts: Sequence[bytes]) -> list[bool]:
        lines = pyarrow.array([text.decode(errors="replace") for text in texts], type=pyarrow.string())
        try:
            found = pyarrow.compute.match_substring_regex(lines, pattern, ignore_case=True)
        except pyarrow.ArrowInvalid as error:
            raise BadInput(
                f"{pattern!r} is not a regular expression: {error}.",
                next_step="Use RE2 syntax (no look-around), or plain text.",
            ) from error
        hits: list[bool] = found.to_pylist()
        return hits

    matches([])
    return matches
