"""When are two tool calls, or two results, the same? What the loop guard compares.

Arguments count by value: order of keys, folded whitespace and remarks (``description``, ``reason``) do not matter.
Results count without what differs each time nothing has happened: clock times, durations, ids, attempt counters.
Other numbers stay: a new line number, loss or step is news.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

REMARK = re.compile(
    r"attempt(_number)?|call_id|comments?|description|explain|explanation|idempotency_key|intent(ion)?|justification|"
    r"nonce|notes?|purpose|rationale|reason(ing)?|remark|request_id|retry(_count)?|thinking|thoughts?|timestamp|"
    r"trace_id|ts|why",
    re.IGNORECASE,
)
"""Arguments that say something about a call and change nothing of it, as long as it has others."""

VOLATILE_KEY = re.compile(
    r"(?:^|_)(?:time|timestamp|ts|date|datetime|elapsed|duration|seconds|secs|ms|millis|minutes|uptime|age|eta|expires|"
    r"nonce|uuid|etag|pid|port|attempts?|retry|retries|counter|at)$"
    r"|^(?:request|trace|span|correlation|message|call|session)_?id$|seconds_in_state|usd_so_far",
    re.IGNORECASE,
)

_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
MASKS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\b\d{4}-\d\d-\d\d(?:[t ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:z|[+-]\d\d:?\d\d)?)?(?!\w)", "<time>"),
        (rf"\b(?:{_MONTHS})[a-z]* \d{{1,2}}(?:,? \d{{4}})?\b", "<time>"),
        (r"(?<![\w:.])\d{1,2}:\d\d:\d\d(?:[.,]\d+)?(?![\w:])", "<time>"),
        (r"\bat \d{1,2}:\d\d\b", "at <time>"),
        (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<id>"),
        (r"\b0x[0-9a-f]+\b", "<id>"),
        (r"\b(?:req|request|msg|toolu|trace|span|session|call|job|run)[_-][a-z0-9]*\d[a-z0-9]*\b", "<id>"),
        (r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,64}\b", "<id>"),
        (r"\btmp[a-z0-9_]{6,}\b", "<id>"),
        (r"(?<![\w.])\d{10,19}(?:\.\d+)?(?![\w.])", "<time>"),
        (
            r"\b(pid|port|attempt|try|retry|retries|poll|call|request|time|timestamp|elapsed|counter|tries)"
            r"(\s*(?:no\.?|number)?\s*[#:=]?\s*)\d+(?:\.\d+)?\b",
            r"\1\2<n>",
        ),
        (r"\b\d+(?:st|nd|rd|th) (?=attempt|try|retry|poll|call|request|time)", "<n> "),
        (
            r"(?<![\w.])\d+(?:\.\d+)?\s?(?:ns|µs|us|ms|s|secs?|seconds?|mins?|minutes?|hrs?|hours?|days?)\b",
            "<duration>",
        ),
    )
)

_SPACE = re.compile(r"\s+")
_WITHOUT_DIGITS = dict.fromkeys(map(ord, "0123456789"))
END_CHARACTERS = 4_000


def masked(text: str) -> str:
    """``text`` with times, durations, ids and attempt counters replaced by their kind, whitespace and case folded.

    Of a long text only both ends are read that closely; its middle counts without its digits.
    """
    if len(text) > 3 * END_CHARACTERS:
        middle = text[END_CHARACTERS:-END_CHARACTERS].translate(_WITHOUT_DIGITS)
        return f"{masked(text[:END_CHARACTERS])} {middle} {masked(text[-END_CHARACTERS:])}"
    text = text.lower()
    for pattern, replacement in MASKS:
        text = pattern.sub(replacement, text)
    return _SPACE.sub(" ", text).strip()


def call_key(name: str, arguments: Mapping[str, Any]) -> str:
    """What makes a call this call: its tool and its arguments, remarks left out."""
    substance = {key: value for key, value in arguments.items() if not REMARK.fullmatch(key)}
    return _digest([name, _folded(substance or dict(arguments))])


def result_key(result: Any) -> str:
    """What a result says, apart from when and under which id it says so."""
    return _digest(_masked_value(parsed(result)))


def error_key(result: Any, arguments: Mapping[str, Any]) -> str:
    """`result_key` of an error in which echoes of the call's own arguments are masked too."""
    value = parsed(result)
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    for echo in sorted({echo for echo in scalars_of(arguments) if len(echo) <= 2_000}, key=len, reverse=True)[:50]:
        if len(echo) >= 3 or echo.replace(".", "").isdigit():
            text = re.sub(rf"(?<![\w.]){re.escape(echo)}(?![\w])", "<argument>", text)
    return _digest(masked(text))


def text_of(result: Any) -> str:
    """A result as text: a string as it is, content blocks by their texts, anything else as JSON."""
    if isinstance(result, str):
        return result
    if isinstance(result, list) and all(isinstance(block, dict) and "type" in block for block in result):
        return "\n".join(
            str(block["text"]) if "text" in block else json.dumps(block, sort_keys=True, default=str)
            for block in result
        )
    return json.dumps(result, sort_keys=True, default=str, ensure_ascii=False)


def parsed(result: Any) -> Any:
    """A result as its JSON value, or as text where it is none."""
    text = text_of(result)
    if text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _masked_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "<volatile>"
            if VOLATILE_KEY.search(key) and not isinstance(each, dict | list)
            else _masked_value(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_masked_value(each) for each in value]
    return masked(value) if isinstance(value, str) else value


def _folded(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _folded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_folded(each) for each in value]
    return _SPACE.sub(" ", value).strip() if isinstance(value, str) else value


def scalars_of(value: Any) -> Iterator[str]:
    """Every text and number in a JSON value."""
    if isinstance(value, Mapping):
        for each in value.values():
            yield from scalars_of(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from scalars_of(each)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield str(value).strip()


def _digest(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:16]
