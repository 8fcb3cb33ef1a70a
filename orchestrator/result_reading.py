"""What a result says to the loop guard: did it fail and of what, and what facts are in it.

A failure is found also where the call itself succeeded: a check that did not pass, a job that failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlintern.orchestrator.signatures import VOLATILE_KEY, call_key, error_key, masked, parsed, scalars_of, text_of
from mlintern.orchestrator.states import LONGEST_TEXT, fails_in_table, fields, has_failed, is_state

_VERDICT_KEY = re.compile(r"^(?:ok|success|succeeded|passed|valid)$", re.IGNORECASE)
_CAUSE_KEY = re.compile(
    r"(?:^|_)(?:error|errors|message|reason|cause|detail|details|stderr|exception|traceback|failures?|rule|problem)$",
    re.IGNORECASE,
)
_EXIT_KEY = re.compile(r"^(?:exit_?code|return_?code|exit_?status)$", re.IGNORECASE)
_OUTPUT_KEY = re.compile(r"(?:^|_)(?:logs?|tail|output|stdout)$", re.IGNORECASE)
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Interrupt|Exit)\b(?::.*)?$", re.MULTILINE
)
_FAILED_TEXT = re.compile(
    r"\A\W*(?:error|failed|failure|fatal|exception|traceback)\b|\bexit(?:ed with)?[ _](?:code|status)\W{0,3}[1-9]"
    r"|^\w*(?:Error|Exception): |^[\w./-]+: (?:fatal )?error: ",
    re.IGNORECASE | re.MULTILINE,
)
_FLOAT = re.compile(r"(?<![\w.])[-+]?\d+\.\d+(?:e[-+]?\d+)?|(?<![\w.])[-+]?\d+e[-+]?\d+", re.IGNORECASE)
_LONG_NUMBER = re.compile(r"(?<![\w.])\d{4,}(?![\w])")
_NAME_WITH_COUNTER = re.compile(r"(?<=[a-z])([_-]?)v?\d+\b", re.IGNORECASE)

_RANKING_KEY = re.compile(
    r"(?:^|_)(?:score|similarity|relevance|rank|distance|took|query|search|limit|offset|cursor|next|token)$",
    re.IGNORECASE,
)
_PAGE_SIZE = re.compile(r"(?:^|_)(?:limit|max|size|top_?k|count|results|chars|n|timeout)(?:$|_)", re.IGNORECASE)
_NOTHING_FOUND = re.compile(
    r"\W*|(?:there (?:are|is) )?no (?:\w+ )?(?:results?|matches|items?|papers?|files?|entries|hits)\b.{0,60}|"
    r"nothing(?: was)? found\b.{0,60}|none|null|0 (?:results?|matches|items?)\b.{0,60}",
    re.IGNORECASE,
)
_AROUND = ",:;'\"()[]{}│├└─"
_WORDS_OF_A_SHORT_LINE = 12
_FEW_FACTS = 4
_MOST_LINES = 3_000


def causes_of_failure(result: Any, *, is_error: bool, arguments: Mapping[str, Any]) -> frozenset[str]:
    """Keys of what went wrong: two failures with a key in common have the same cause. Empty if nothing went wrong.

    Numbers with a decimal point, long numbers and counters in names are no part of a cause, and of a traceback only
    its exception is. One key leaves out the echoes of the arguments as well; the other does not, as a small number
    among the arguments may stand in the text for something else.
    """
    value = parsed(result)
    if not (is_error or _failed(value)):
        return frozenset()
    said = _exception(value) if isinstance(value, str) else _causes(value)
    text = said if isinstance(said, str) else "\n".join(sorted(set(said))) or text_of(result)
    text = _without_counts(_FLOAT.sub("<x>", text))
    plain = {key: _without_counts(v) if isinstance(v, str) else v for key, v in arguments.items()}
    return frozenset({error_key(text, {}), error_key(text, plain)})


def _without_counts(text: str) -> str:
    return _LONG_NUMBER.sub("<n>", _NAME_WITH_COUNTER.sub(r"\1<n>", text))


def _exception(text: str) -> str:
    """The exceptions of a text that holds a traceback, which stands at other lines each time; else the text."""
    if "Traceback" not in text:
        return text
    return "\n".join(match.group() for match in _EXCEPTION.finditer(text)) or text


def _failed(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT and (bool(_FAILED_TEXT.search(value)) or fails_in_table(value))
    for key, each in fields(value, depth=3):
        if _VERDICT_KEY.match(key) and each is False:
            return True
        if is_state(key) and isinstance(each, str) and has_failed(each):
            return True
        if _EXIT_KEY.match(key) and isinstance(each, int) and each != 0:
            return True
    return False


def _causes(value: Any) -> list[str]:
    """The texts that say why, nested ones too; of a traceback its last line."""
    found = []
    for key, each in fields(value):
        if _CAUSE_KEY.search(key) and isinstance(each, str | int) and str(each).strip():
            found.append(_exception(str(each)).strip().splitlines()[-1])
        elif _OUTPUT_KEY.search(key) and isinstance(each, str):
            found += [match.group() for match in _EXCEPTION.finditer(each)]
    return found


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
            plain = (word.strip(_AROUND).removeprefix("./") for word in words if word not in echoes)
            yield from (word for word in plain if word and word not in echoes)


def _facts_of_json(value: Any, echoes: set[str]) -> Iterator[str]:
    for key, each in fields(value):
        if VOLATILE_KEY.search(key) or _RANKING_KEY.search(key) or each is None or each in ("", 0, False):
            continue
        text = str(each)
        if text.lower() in echoes or set(text.lower().split()) <= echoes:
            continue
        if len(text) > 200:
            yield from _facts_of_text(text, echoes)
        else:
            yield f"{key}={masked(text)}"
