"""What state a result names: one that lawfully stays as it is, or one that is final.

Schedulers are other people's, so nothing is taken for granted about the form: states stand nested in JSON, in tables
such as ``squeue``, ``bjobs``, ``qstat`` and ``kubectl get`` print, in rows between bars, and in sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlintern.orchestrator.signatures import parsed

DEPTH = 6
LONGEST_TEXT = 4_000
"""Characters of a text that is read for a state or a failure: a long document is about something else."""

_WAITING_WORDS = (
    r"queued|queueing|in[ _-]queue|pending|runnable|running|starting|started|schedul(?:ed|ing)|waiting|"
    r"in[ _-]?progress|processing|preparing|validating(?:[ _]files)?|configuring|completing|requeued|suspended|"
    r"provisioning|launching|creating|allocating|pulling|initiali[sz]ing|building|loading|restarting|"
    r"not[ _]?ready|not[ _]?started|container[ _]?creating|active|working"
)
_OVER_WORDS = (
    r"succeeded|success|completed?|done|finished|failed|failure|error|cancell?ed|timed?[ _]?out|lost|deleted|"
    r"out[ _]of[ _]memory|node[ _]fail|preempted|stopped|terminated|crashed"
)
_FAILED_WORDS = (
    r"failed|failure|error|errored|invalid|rejected|denied|crashed|timed?[ _]?out|out[ _]of[ _]memory|"
    r"node[ _]fail|lost"
)
_WAITING = re.compile(_WAITING_WORDS, re.IGNORECASE)
_OVER = re.compile(_OVER_WORDS, re.IGNORECASE)
_FAILED = re.compile(_FAILED_WORDS, re.IGNORECASE)
_KEY = re.compile(r"(?:^|_)(?:state|status|phase|stage)$|^st$", re.IGNORECASE)
_KIND = re.compile(r"^(?:job[ _])?(?:state|status)[ _]", re.IGNORECASE)
"""What some put before the state itself: ``JOB_STATE_RUNNING``, ``STATUS_RUNNING``."""
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")

_CODES = frozenset({"PD", "R", "CF", "CG", "RQ", "RD", "SO", "PEND", "RUN", "Q", "qw", "r"})
"""Slurm's, LSF's, PBS's and Grid Engine's short states of a job that waits or runs."""
_COLUMN = re.compile(r"(?<!\S)(?:st|stat|state|status|phase|s)(?!\S)", re.IGNORECASE)
_JOB_LINE = re.compile(r"\s*\d+(?:[._]\S+)?\s.*\s(?:PD|R|CF|CG)\s+(?:\d+-)?\d*:?\d+:\d\d\s")
"""A line of ``squeue`` without its heading: job, ..., state, time."""
_FAILED_CELL = re.compile(r"FAILED|TIMEOUT|OUT_OF_MEMORY|NODE_FAIL|CANCELLED(?: by \d+)?")
_SAID = re.compile(
    rf"(?:\b|(?<=[a-z_]))(?:state|status|phase)\b[^\w\n]{{1,4}}(?:(?:job_)?(?:state|status)_)?(?:{_WAITING_WORDS})\b"
    rf"|\b(?:(?:is|are)(?: still| now| currently)?|still) (?:{_WAITING_WORDS})"
    r"(?=\W*$|[^\w\s]|\s+(?:on|for|since|at|with|in|and|step|now)\b)"
    rf"|\bjob\W+\S*\d\S*(?: is| has been)? (?:{_WAITING_WORDS})\b|\bpending job\b"
    r"|\bjobs;.*\b[1-9]\d* (?:idle|running)\b"
    rf"|^\W*(?:{_WAITING_WORDS})\W*$",
    re.IGNORECASE | re.MULTILINE,
)
_UP = re.compile(r"(?<!\S)Up (?:\d+|About|Less)\b")
_NONE = re.compile(r"\b(?:no|none|nothing|not|never|without)\b|n't\b", re.IGNORECASE)


def waits(result: Any) -> bool:
    """Whether it names a state that lawfully stays as it is, or asks to come again later."""
    value = parsed(result)
    if not isinstance(value, str):
        return any(
            (is_state(key) and isinstance(each, str) and _is_waiting(each))
            or (key.startswith("retry_after") and bool(each))
            for key, each in fields(value)
        )
    return len(value) <= LONGEST_TEXT and (_said(value) or _waits_in_table(value))


def is_over(result: Any) -> bool:
    """Whether it names a final state: asking for that again brings nothing."""
    value = parsed(result)
    if isinstance(value, str):
        return bool(_OVER.fullmatch(_plain(value.strip().strip(".!"))))
    states = [each for key, each in fields(value) if is_state(key) and isinstance(each, str)]
    return any(_OVER.fullmatch(_plain(state)) for state in states)


def has_failed(state: str) -> bool:
    """Whether a state is one of failure."""
    return bool(_FAILED.fullmatch(_plain(state)))


def fails_in_table(text: str) -> bool:
    """Whether a row between bars, as ``sacct -P`` prints it, has the state of a failed job."""
    return any(
        len(cells := line.split("|")) >= 3 and any(_FAILED_CELL.fullmatch(cell.strip()) for cell in cells)
        for line in text.splitlines()
    )


def is_state(key: str) -> bool:
    """Whether a field of that name holds a state: ``status``, ``job_state``, ``TrainingJobStatus``."""
    return bool(_KEY.search(_HUMP.sub("_", key)))


def fields(value: Any, depth: int = DEPTH) -> Iterator[tuple[str, Any]]:
    """Every (key, value) in a JSON value whose value is no container; items of a list under the key of the list."""
    if depth < 0:
        return
    if isinstance(value, Mapping):
        for key, each in value.items():
            if isinstance(each, Mapping):
                yield from fields(each, depth - 1)
            elif isinstance(each, list):
                yield from fields([{key: item} if not isinstance(item, Mapping) else item for item in each], depth)
            else:
                yield str(key), each
    elif isinstance(value, list):
        for each in value[:500]:
            yield from fields(each, depth - 1)


def _plain(state: str) -> str:
    return _KIND.sub("", _HUMP.sub(" ", state.strip()))


def _is_waiting(state: str) -> bool:
    return bool(_WAITING.fullmatch(_plain(state))) or state.strip() in _CODES


def _said(text: str) -> bool:
    """A sentence says so, and no word before it takes it back: nothing is running."""
    for match in _SAID.finditer(text):
        before = re.split(r"[.;!?\n]", text[: match.start()])[-1]
        if not _NONE.search(before):
            return True
    return bool(_UP.search(text))


def _waits_in_table(text: str) -> bool:
    place: tuple[int, int, int] | None = None
    for line in text.splitlines():
        words = [(word.start(), word.end(), word.group()) for word in re.finditer(r"\S+", line)]
        heading = list(_COLUMN.finditer(line))
        if heading and len(words) > 1 and (place is None or len(heading[-1].group()) > 1):
            start = heading[-1].start()
            place = (start, heading[-1].end(), sum(word[0] < start for word in words))
        elif place is not None:
            start, end, number = place
            under = [word for first, last, word in words if first <= end and last >= start]
            nearby = [word for _, _, word in words[max(0, number - 1) : number + 2]]  # columns may be shifted
            if "S" in under or any(
                _is_waiting(word) for word in [*under, *(one for one in nearby if len(one) > 1 or one == "R")]
            ):
                return True
        elif _JOB_LINE.match(line) or _waits_between_bars(line):
            return True
    return False


def _waits_between_bars(line: str) -> bool:
    cells = [cell.strip() for cell in line.split("|")]
    return len(cells) >= 3 and any(cell.isupper() and _is_waiting(cell) for cell in cells)
