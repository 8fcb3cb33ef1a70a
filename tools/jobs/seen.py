"""What a caller has been told of a job, as a short text that the caller keeps and gives back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self, cast

from mlintern.tools.errors import BadInput
from mlintern.tools.jobs.spec import STATES, JobState

_FORM = re.compile(r"([a-z_]+)\.(\d{1,18})((?:\.[0-9a-f]{6})*)", re.ASCII)


@dataclass(frozen=True)
class Seen:
    """A job's state, its news (`Live.news`) and the length of its log, as they were told.

    Written as ``running.5120.a1b2c3.d4e5f6``: the state, the bytes of the log, six hex digits for each piece of news.
    """

    state: JobState
    news: frozenset[str] = frozenset()
    log_bytes: int = 0
    hashed: frozenset[str] = frozenset()

    def lacks(self, news: Iterable[str]) -> bool:
        """Whether there is anything in ``news`` that was not told yet."""
        return any(not self.has(piece) for piece in news)

    def has(self, piece: str) -> bool:
        return piece in self.news or _short(piece) in self.hashed

    def __str__(self) -> str:
        return ".".join(
            [self.state, str(self.log_bytes), *sorted(self.hashed | {_short(each) for each in self.news})]
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises BadInput: ``text`` was not made by this class."""
        match = _FORM.fullmatch(text)
        if match is None or match[1] not in STATES:
            raise BadInput(
                f"{text[:80]!r} is no value of since.",
                next_step="Pass next_since of the last poll_job, or leave it out.",
            )
        return cls(
            cast(JobState, match[1]), log_bytes=int(match[2]), hashed=frozenset(match[3].removeprefix(".").split("."))
        )


def _short(piece: str) -> str:
    return hashlib.sha256(piece.encode()).hexdigest()[:6]
