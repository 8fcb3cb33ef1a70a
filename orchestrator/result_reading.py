"""What a result says to the loop guard: does it wait for something, did it fail and of what, what facts are in it.

Servers are other people's, so nothing is taken for granted about the form: states are found nested in JSON, in tables
such as ``squeue`` prints and in sentences; failures also where the call itself succeeded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlintern.orchestrator.signatures import (
    VOLATILE_KEY,
    call_key,
    error_key,
    masked,
    parsed,
    scalars_of,
    text_of,
)

DEPTH = 6
LONGEST_TEXT = 4_000
"""Characters of a text that is read for a state or a failure: a long document is about something else."""

_WAITING_WORDS = (
    r"queued|pending|running|starting|started|schedul(?:ed|ing)|waiting|in[ _-]progress|processing|configuring|"
    r"completing|requeued|suspended|provisioning|initiali[sz]ing|building|not[ _]ready|containercreating|"
    r"job_state_(?:queued|pending|running)|active|working"
)
_OVER_WORDS = (
    r"succeeded|success|completed?|done|finished|failed|failure|error|cancell?ed|timed?_?out|lost|deleted|"
    r"out_of_memory|node_fail|preempted|job_state_(?:succeeded|failed|cancelled)|stopped|terminated|crashed"
)
WAITING = re.compile(_WAITING_WORDS, re.IGNORECASE)
OVER = re.compile(_OVER_WORDS, re.IGNORECASE)
_STATE_KEY = re.compile(r"(?:^|_)(?:state|status|phase|stage)$|^st$", re.IGNORECASE)
_SCHEDULER_CODES = frozenset({"PD", "R", "CF", "CG", "RQ", "S", "RD", "SO"})
_STATE_COLUMN = frozenset({"st", "state", "status", "phase"})
_SAID_WAITING = re.compile(
    rf"\b(?:state|status|phase)\b[^\w\n]{{1,4}}(?:{_WAITING_WORDS})\b"
    rf"|\b(?:is|are)(?: still| now| currently)? (?:{_WAITING_WORDS})\b"
    rf"|\bstill (?:{_WAITING_WORDS})\b|^\W*(?:{_WAITING_WORDS})\W*$",
    re.IGNORECASE,
)

_FAILED_STATE = re.compile(
    r"failed|failure|error|errored|invalid|rejected|denied|crashed|timed?_?out|out_of_memory|lost|job_state_failed",
    re.IGNORECASE,
)
_VERDICT_KEY = re.compile(r"^(?:ok|success|succeeded|passed|valid)$", re.IGNORECASE)
_CAUSE_KEY = re.compile(
    r"(?:^|_)(?:error|errors|message|reason|cause|detail|details|stderr|exception|traceback|failures?|rule|problem)$",
    re.IGNORECASE,
)
_EXIT_KEY = re.compile(r"^(?:exit_?code|return_?code|exit_?status)$", re.IGNORECASE)
_FAILED_TEXT = re.compile(
    r"\A\W*(?:error|failed|failure|fatal|exception|traceback)\b|\bexit(?:ed with)?[ _](?:code|status)\W{0,3}[1-9]"
    r"|^\w*(?:Error|Exception): ",
    re.IGNORECASE | re.MULTILINE,
)
_FLOAT = re.compile(r"(?<![\w.])[-+]?\d+\.\d+(?:e[-+]?\d+)?|(?<![\w.])[-+]?\d+e[-+]?\d+", re.IGNORECASE)
_NAME_WITH_COUNTER = re.compile(r"(?<=[a-z])([_-]?)v?\d+\b", re.IGNORECASE)

_RANKING_KEY = re.compile(r"(?:^|_)(?:score|similarity|relevance|rank|distance|took|query|limit|offset)$", re.I)
_PAGE_SIZE = re.compile(r"(?:^|_)(?:limit|max|size|top_?k|count|results|chars|n|timeout)(?:$|_)", re.IGNORECASE)
_NOTHING_FOUND = re.compile(
    r"\W*|(?:there (?:are|is) )?no (?:\w+ )?(?:results?|matches|items?|papers?|files?|entries|hits)\b.{0,60}|"
    r"nothing(?: was)? found\b.{0,60}|none|null|0 (?:results?|matches|items?)\b.{0,60}",
    re.IGNORECASE,
)
_WORDS_OF_A_SHORT_LINE = 12
_FEW_FACTS = 4
_MOST_LINES = 3_000


def waits(result: Any) -> bool:
    """Whether it names a state that lawfully stays as it is, or asks to come again later."""
    value = parsed(result)
    if not isinstance(value, str):
        return any(
            (_STATE_KEY.search(key) and isinstance(each, str) and _is_waiting(each))
            or (key.startswith("retry_after") and bool(each))
            for key, each in _fields(value)
        )
    return len(value) <= LONGEST_TEXT and (bool(_SAID_WAITING.search(value)) or _waits_in_table(value))


def is_over(result: Any) -> bool:
    """Whether it names a final state: asking for that again brings nothing."""
    value = parsed(result)
    if isinstance(value, str):
        return bool(OVER.fullmatch(value.strip().strip(".!")))
    states = [each for key, each in _fields(value) if _STATE_KEY.search(key) and isinstance(each, str)]
    return any(OVER.fullmatch(state.strip()) for state in states)


def _is_waiting(state: str) -> bool:
    state = state.strip()
    return bool(WAITING.fullmatch(state)) or state in _SCHEDULER_CODES - {"S"}


def _waits_in_table(text: str) -> bool:
    """A line under a heading with a column of states, as ``squeue``, ``sacct`` or ``kubectl get`` print it."""
    column: int | None = None
    for line in text.splitlines():
        words = line.split()
        heading = [place for place, word in enumerate(words) if word.lower() in _STATE_COLUMN]
        if heading and len(words) > 1:
            column = heading[0]
        elif column is not None and len(words) > column:
            nearby = words[max(0, column - 1) : column + 2]  # names with spaces shift the columns
            if any(word in _SCHEDULER_CODES or WAITING.fullmatch(word) for word in nearby):
                return True
        elif column is None and len(words) >= 5 and {"PD", "CF", "CG"} & set(words):
            return True  # squeue without its heading
    return False


def cause_of_failure(result: Any, *, is_error: bool, arguments: Mapping[str, Any]) -> str | None:
    """A key of what went wrong, the same for the same cause; None if nothing did.

    Echoes of the arguments, numbers with a decimal point and counters in names are no part of the cause.
    """
    value = parsed(result)
    if not (is_error or _failed(value)):
        return None
    said = value if isinstance(value, str) else _causes(value)
    text = said if isinstance(said, str) else "\n".join(sorted(set(said))) or text_of(result)
    text = _NAME_WITH_COUNTER.sub(r"\1<n>", _FLOAT.sub("<x>", text))
    plain = {key: _NAME_WITH_COUNTER.sub(r"\1<n>", v) if isinstance(v, str) else v for key, v in arguments.items()}
    return error_key(text, plain)


def _failed(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT and bool(_FAILED_TEXT.search(value))
    for key, each in _fields(value, depth=3):
        if _VERDICT_KEY.match(key) and each is False:
            return True
        if _STATE_KEY.search(key) and isinstance(each, str) and _FAILED_STATE.fullmatch(each.strip()):
            return True
        if _EXIT_KEY.match(key) and isinstance(each, int) and each != 0:
            return True
    return False


def _causes(value: Any) -> list[str]:
    """The texts that say why, nested ones too; of a traceback its last line."""
    found = []
    for key, each in _fields(value):
        if _CAUSE_KEY.search(key) and isinstance(each, str | int) and str(each).strip():
            found.append(str(each).strip().splitlines()[-1])
    return found


def _fields(value: Any, depth: int = DEPTH) -> Iterator[tuple[str, Any]]:
    """Every (key, value) in a JSON value whose value is no container; items of a list under the key of the list."""
    if depth < 0:
        return
    if isinstance(value, Mapping):
        for key, each in value.items():
            if isinstance(each, Mapping):
                yield from _fields(each, depth - 1)
            elif isinstance(each, list):
                yield from _fields([{key: item} if not isinstance(item, Mapping) else item for item in each], depth)
            else:
                yield str(key), each
    elif isinstance(value, list):
        for each in value[:500]:
            yield from _fields(each, depth - 1)


@dataclass(frozen=True)
class Facts:
    """What a result tells: hashes of its facts, and whether it says that there is nothing."""

    hashes: frozenset[int]
    nothing_found: bool


def facts_of(name: str, arguments: Mapping[str, Any], *, result: Any) -> Facts:
    """The facts in a result, whatever their order and layout, without echoes of the arguments and without scores.

    A short answer (``ok``) tells only together with its call; how many items were asked for is no part of a call.
    """
    value = parsed(result)
    echoes = {word for text in scalars_of(arguments) for word in text.lower().split()}
    facts = set(_facts_of_text(value, echoes) if isinstance(value, str) else _facts_of_json(value, echoes))
    nothing = not facts or (isinstance(value, str) and bool(_NOTHING_FOUND.fullmatch(value.strip())))
    if len(facts) < _FEW_FACTS and not nothing:
        asked = {key: each for key, each in arguments.items() if not _PAGE_SIZE.search(key)}
        facts = {f"{call_key(name, asked or arguments)}: {' '.join(sorted(facts))}"}
    return Facts(frozenset(map(hash, facts)), nothing)


def _facts_of_text(text: str, echoes: set[str]) -> Iterator[str]:
    for line in text.splitlines()[:_MOST_LINES]:
        words = masked(line).split()
        if len(words) > _WORDS_OF_A_SHORT_LINE:
            yield " ".join(words)
        else:
            yield from (word for word in words if word not in echoes and word.strip(".,:;'\"()[]") not in echoes)


def _facts_of_json(value: Any, echoes: set[str]) -> Iterator[str]:
    for key, each in _fields(value):
        if VOLATILE_KEY.search(key) or _RANKING_KEY.search(key) or each is None or each in ("", 0, False):
            continue
        text = str(each)
        if text.lower() in echoes or set(text.lower().split()) <= echoes:
            continue
        if len(text) > 200:
            yield from _facts_of_text(text, echoes)
        else:
            yield f"{key}={masked(text)}"
