"""Which items belong together: attempts at one question, or questions on one text.

Scores of such items are alike, so that they count for less than as many independent ones; a test that does not know
it raises false alarms (Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640, 2.2).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlintern.tools.evals.result_rows import EvalRow, Sample

_ATTEMPT = re.compile(
    r"^(.+?)[-_#:/@. ]*(?:attempt|sample|try|rep|repeat|run|epoch|seed|k|#|@|-|_|:|/)[-_#:]?(\d{1,2})$", re.I
)
PASSAGES = ("cluster", "passage", "context", "article", "story", "paragraph", "document")
"""Columns that tell which items belong together, or hold a text that several questions are about."""
MOST_ATTEMPTS = 32
LEAST_QUESTIONS = 3
MOST_ANSWERS = 256
"""To one item, up to which `avg@k` is taken apart into right and wrong answers."""


def find_clusters(ids: Sequence[str], samples: Iterable[Sample] | None) -> tuple[dict[str, str], str] | None:
    """The cluster of each item and what told it; None where every item stands for itself, as far as is known.

    Told by a ``cluster`` or a shared passage, by equal text, or by ids that number the attempts at each question
    (``q7-0``, ``q7-1``: the same numbers, at most 32, for each of three questions or more). Of several the coarsest.
    """
    known = {sample.id: sample for sample in samples or ()}
    found: list[tuple[dict[str, str], str]] = []
    if all(item in known for item in ids):
        for told, of_sample in (("a cluster or passage", _cluster), ("the same text", _text)):
            groups = {item: of_sample(known[item]) or item for item in ids}
            if len(set(groups.values())) < len(ids):
                found.append((groups, told))
    if not found and (attempts := _by_attempt(ids)):
        found.append((attempts, "ids that number attempts"))
    return min(found, key=lambda one: len(set(one[0].values())), default=None)


def cluster_in(document: Mapping[str, Any]) -> str | None:
    """What an item shares with others: its ``cluster``, else the text that it is about, shortened to its hash."""
    found = next((document[name] for name in PASSAGES if document.get(name) not in (None, "", [])), None)
    return None if found is None else hashlib.sha256(str(found).encode()).hexdigest()[:16]


def _cluster(sample: Sample) -> str | None:
    return sample.cluster


def _text(sample: Sample) -> str | None:
    if sample.prompt:
        return sample.prompt
    return "\0".join([sample.question, *sample.options]) if sample.question else None


def _by_attempt(ids: Sequence[str]) -> dict[str, str] | None:
    matches = {item: _ATTEMPT.match(item) for item in ids}
    numbers: dict[str, set[str]] = {}
    for match in matches.values():
        if match is None:
            return None
        numbers.setdefault(match[1], set()).add(match[2])
    sets = Counter(map(frozenset, numbers.values()))
    attempts = next(iter(sets))
    if len(sets) > 1 or not 2 <= len(attempts) <= MOST_ATTEMPTS or len(numbers) < LEAST_QUESTIONS:
        return None
    first = sorted(int(number) for number in attempts)
    numbered = first in (list(range(len(first))), list(range(1, len(first) + 1)))
    return {item: match[1] for item, match in matches.items() if match} if numbered else None


def attempts_behind(row: EvalRow, scores: Sequence[float]) -> int:
    """How many right-or-wrong answers each of ``scores`` is the mean of, where the metric says so; else 1."""
    told = re.fullmatch(r"avg@(\d{1,4})", row.metric)
    count = int(told[1]) if told else row.protocol.get("samples") if row.metric == "pass@1" else 1
    if not isinstance(count, int) or not 1 < count <= MOST_ANSWERS:
        return 1
    whole = all(0 <= score <= 1 and abs(score * count - round(score * count)) < 1e-6 for score in scores)
    return count if whole else 1
