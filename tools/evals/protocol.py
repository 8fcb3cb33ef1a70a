"""How a result was measured, and whether two results were measured alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from mlintern.common.text import cut_line
from mlintern.tools.evals.result_rows import EvalRow

ITEMS = "items"
"""Which items were asked. It is compared item by item, and named so, where the samples are there."""

HAS_OWN_FIELD = frozenset({ITEMS, "fewshot"})
"""Parts of a protocol that a row states in a field of its own, where they are compared."""

LONGEST = 60
NAMES: Mapping[str, str] = {
    "chat_template": "chat template",
    "chat_template_kwargs": "chat template arguments",
    "gen_kwargs": "generation arguments",
    "max_new_tokens": "token limit",
    "examples": "few-shot examples",
    "extract": "extraction pattern",
    "system": "system message",
}


def fingerprint(protocol: Mapping[str, Any]) -> str | None:
    """A short name of a protocol, equal for equal ones; None for an empty one."""
    return digest_of(protocol) if protocol else None


def digest_of(value: Any) -> str:
    """The first 12 hex of the SHA-256 of ``value`` as JSON with sorted keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(a: EvalRow, b: EvalRow) -> Iterable[str]:
    """What of the protocols of two rows of one harness differs, in words.

    A result that states no protocol at all says nothing about it; one that does is compared in every part, and what
    it does not name is not in use there.
    """
    if not a.protocol or not b.protocol:
        return
    for key in sorted((a.protocol.keys() | b.protocol.keys()) - HAS_OWN_FIELD):
        ours, theirs = a.protocol.get(key), b.protocol.get(key)
        if ours != theirs:
            yield f"different {NAMES.get(key, key)} ({_said(ours)}, {_said(theirs)})"


def _said(value: Any) -> str:
    if value in (None, "", {}, []):
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return cut_line(text, LONGEST)
