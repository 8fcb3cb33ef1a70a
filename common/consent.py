"""What a person is asked to agree to, as data, and what they may allow in advance.

The server describes an `Action` once; the question's text is made from it, and the action itself travels beside the
text in the question's ``_meta``. A client that decides by rule reads the data, never the sentence.

An allowance is ``[TOOL:]BACKEND[<=LIMIT]``, or a tool alone. A limit of time (``local<=30m``) holds for each action
and speaks only for what is free of charge: any number of one-hour jobs can cost any amount. A limit of money
(``hf<=5usd``) holds for everything that it allows together. Without a limit it speaks for what is free of charge.
Where several allowances speak for one action, the action must satisfy them all.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from mlintern.common.durations import BadDuration, format_duration, parse_duration
from mlintern.common.text import cut, did_you_mean, format_usd_limit, printable

ACTION_META = "mlintern/action"
"""The key of an action in the ``_meta`` of a question."""

BACKENDS = ("local", "slurm", "ray", "hf_jobs")
SHORT_NAMES = {"hf": "hf_jobs"}
COMMON_KINDS = frozenset({"submit_job", "check_script"})
"""What an allowance without a tool speaks for."""

ALLOWABLE_KINDS = COMMON_KINDS | {"cancel_job", "run_trials", "confirm"}
"""What may be allowed in advance. Publishing and schedules always ask."""

TOLERANCE = 1e-9
"""Prices are sums of binary fractions; a limit is not passed by a rounding error."""

SHOWN_DIGITS = 12
LONGEST_NAME = 40
LONGEST_DETAIL = 500

_RULE = re.compile(r"(?:(?P<tool>\w+):)?(?P<backend>\w+)\s*(?:<=\s*(?P<limit>\S.*))?", re.ASCII)
_MONEY = re.compile(r"(?:\$\s*(\d+(?:\.\d+)?)|(\d+(?:\.\d+)?)\s*(?:usd|\$))", re.IGNORECASE | re.ASCII)
_EXAMPLES = "local<=30m, slurm<=2h, hf<=5usd, submit_job:local"


class BadRule(ValueError):
    """An ``--allow`` that cannot be read or can match nothing; the message says what to write."""


@dataclass(frozen=True, kw_only=True)
class Action:
    """What is to be consented to, described once.

    Attributes:
        kind: the tool that asks: ``submit_job``, ``check_script``, ``publish_to_hub``, ...; ``schedule_job`` for a
            job that is started again and again.
        what: verb and object in words of ours, such as ``Run script``.
        name: what others named it; shown last, quoted.
        where: the backend's name.
        hardware: what it would run on, as the backend names it; may be empty.
        usd_now: what it costs to begin with, in US dollars.
        usd_worst: what it costs if it runs until its time-out, in US dollars; None if the price is not known.
        seconds: its time-out, of each run; 0 for what takes no time.
        runs: how many times at most it runs; ``usd_worst`` is for all of them.
        digest: names what is done; another action, however similar, has another digest.
        priced_at: the day or month of the prices, where they are not today's; empty otherwise.
        always_ask: why no allowance speaks for it; empty where one may.
        script_id: the script that it runs, for those who show it whole; empty if it runs none.
        details: further (label, value) pairs that a person should see before deciding.
    """

    kind: str
    what: str
    where: str
    digest: str
    name: str = ""
    hardware: str = ""
    usd_now: float = 0.0
    usd_worst: float | None = 0.0
    seconds: float = 0.0
    runs: int = 1
    priced_at: str = ""
    always_ask: tuple[str, ...] = ()
    script_id: str = ""
    details: tuple[tuple[str, str], ...] = ()

    @property
    def consent_digest(self) -> str:
        """What a decision is bound to, and what people type: the action with its price and the day of the price."""
        if self.usd_worst == 0 and not self.priced_at:
            return self.digest
        named = json.dumps([self.digest, self.usd_worst, self.priced_at])
        return hashlib.sha256(named.encode()).hexdigest()[: max(len(self.digest), SHOWN_DIGITS)]

    @property
    def cost(self) -> str:
        """``free of charge``, ``at most 4.50 USD`` or ``price unknown``."""
        if self.usd_worst is None:
            return "price unknown"
        dated = f" at the prices of {_plain(self.priced_at)}" if self.priced_at else ""
        return f"at most {format_usd_limit(self.usd_worst)}{dated}" if self.usd_worst else "free of charge"

    @property
    def headline(self) -> str:
        """One line: price, place, time and digest, which decide; then what it is, and last what others named it."""
        place = f"{self.where} {self.hardware}".rstrip()
        limit = f", up to {format_duration(self.seconds)}" if self.seconds else ""
        if self.runs != 1 or self.kind == "schedule_job":
            limit = f", {self.runs} runs{limit} each"
        said = f"{self.cost} on {_plain(place)}{limit} (digest {self.short_digest}): {_plain(self.what)}"
        return f'{said} "{_name(self.name)}"' if self.name else said

    @property
    def lines(self) -> list[str]:
        """The details, each on one line, as any of them may hold what a model wrote; what is cut says so."""
        reasons = [f"Always asked: {reason}" for reason in self.always_ask]
        shown = [f"{label}: {value}" for label, value in self.details]
        return [cut(printable(line), LONGEST_DETAIL) for line in (*reasons, *shown)]

    @property
    def question(self) -> str:
        """All that is shown in a dialog: hosts cut it after about three lines."""
        return "\n".join([f"{self.headline}?", *self.lines])

    @property
    def short_digest(self) -> str:
        """As much of the consent's digest as people compare and type; decisions are bound to all of it."""
        return self.consent_digest[:SHOWN_DIGITS]

    def to_json(self) -> str:
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Action:
        """What `to_json` wrote, of this or an earlier version."""
        stated = json.loads(text)
        if "hours" in stated:
            stated["seconds"] = 3600 * stated.pop("hours")
        known = {field.name for field in fields(cls)}
        stated = {name: value for name, value in stated.items() if name in known}
        stated["details"] = tuple((label, value) for label, value in stated.get("details", ()))
        stated["always_ask"] = tuple(stated.get("always_ask", ()))
        return cls(**stated)

    def to_meta(self) -> dict[str, Any]:
        """The action as ``_meta`` of the question about it."""
        return {ACTION_META: json.loads(self.to_json())}

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any] | None) -> Action | None:
        """The action that came with a question; None if none did, or if what came is not of the form."""
        stated = (meta or {}).get(ACTION_META)
        if not isinstance(stated, Mapping):
            return None
        try:
            action = cls.from_json(json.dumps(dict(stated), allow_nan=False))
        except (TypeError, ValueError):
            return None
        return action if action._is_sound() else None

    def _is_sound(self) -> bool:
        amounts = [self.usd_now, self.usd_worst, self.seconds, self.runs]
        texts = [
            self.kind,
            self.what,
            self.where,
            self.digest,
            self.name,
            self.hardware,
            self.priced_at,
            self.script_id,
        ]
        texts += self.always_ask
        return (
            all(amount is None or (_is_number(amount) and amount >= 0) for amount in amounts)
            and all(isinstance(text, str) for text in (*texts, *(part for pair in self.details for part in pair)))
            and None not in (self.usd_now, self.seconds, self.runs)
            and self.digest.isalnum()
        )


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One allowance. ``limit`` in seconds of each action, or in US dollars of all together.

    ``tool`` None speaks for jobs and dry runs; ``backend`` None for every backend.
    """

    text: str
    tool: str | None = None
    backend: str | None = None
    kind: Literal["free", "time", "usd"] = "free"
    limit: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read ``local<=30m``, ``hf<=5usd``, ``submit_job:local`` or ``submit_job``.

        Raises:
            BadRule: it cannot be read, or there is nothing that it could match.
        """
        match = _RULE.fullmatch(text.strip())
        if match is None:
            raise BadRule(f"--allow {text!r} is not an allowance: write BACKEND<=LIMIT, such as {_EXAMPLES}.")
        tool, backend = match["tool"], match["backend"].lower()
        if tool is None and backend in ALLOWABLE_KINDS:
            tool, backend = backend, ""
        backend = SHORT_NAMES.get(backend, backend)
        if tool is not None and tool not in ALLOWABLE_KINDS:
            hint = did_you_mean(tool, sorted(ALLOWABLE_KINDS))
            raise BadRule(f"--allow {text!r}: {tool} is no tool that can be allowed in advance. {hint}")
        if backend and backend not in BACKENDS:
            hint = did_you_mean(backend, BACKENDS)
            raise BadRule(
                f"--allow {text!r} is not an allowance: it names no backend. {hint} Write for example {_EXAMPLES}."
            )
        kind, limit = _limit(match["limit"], text)
        return cls(text=text.strip(), tool=tool, backend=backend or None, kind=kind, limit=limit)

    def speaks_for(self, action: Action) -> bool:
        """Whether it says anything about ``action``."""
        kinds = COMMON_KINDS if self.tool is None else {self.tool}
        return action.kind in kinds and self.backend in (None, action.where)

    def within(self, action: Action, *, usd_spent: float) -> bool:
        """Whether ``action`` keeps to its limit, after ``usd_spent`` were spent under it."""
        if self.kind == "usd":
            return action.usd_worst is not None and usd_spent + action.usd_worst <= self.limit + TOLERANCE
        return self.kind == "free" or 0 < action.seconds <= self.limit + TOLERANCE


def covering(
    rules: Iterable[Rule], action: Action, *, usd_spent: Callable[[Rule], float], prices_allowed: bool = False
) -> tuple[Rule, ...] | None:
    """The allowances under which ``action`` may start without a question; None if it needs one.

    Args:
        usd_spent: what was spent under a rule.
        prices_allowed: something else, a budget, allows what costs money.
    """
    if action.usd_worst is None or action.always_ask or action.kind not in ALLOWABLE_KINDS:
        return None
    speaking = tuple(rule for rule in rules if rule.speaks_for(action))
    if not all(rule.within(action, usd_spent=usd_spent(rule)) for rule in speaking):
        return None
    if action.usd_worst > 0:
        return speaking if prices_allowed or any(rule.kind == "usd" for rule in speaking) else None
    return speaking or None


def suggested(action: Action) -> Rule | None:
    """The narrowest allowance that covers just this action again; None where none can."""
    if action.usd_worst is None or action.always_ask or action.kind not in ALLOWABLE_KINDS:
        return None
    if action.where not in BACKENDS:
        return None
    limit = ""
    if action.usd_worst > 0:
        limit = f"<={format_usd_limit(action.usd_worst).replace(' USD', 'usd')}"
    elif action.seconds > 0:
        limit = f"<={format_duration(math.ceil(action.seconds)).replace(' ', '').replace('min', 'm')}"
    return Rule.parse(f"{action.kind}:{action.where}{limit}")


def meaning(rules: Collection[Rule]) -> list[str]:
    """What allowances grant, a sentence each, for people who are about to give them."""
    return [_sentence(rule) for rule in rules]


def _sentence(rule: Rule) -> str:
    what = {
        None: "jobs and dry runs",
        "submit_job": "jobs",
        "check_script": "dry runs",
        "cancel_job": "cancelling",
        "run_trials": "trials of an experiment",
        "confirm": "confirmations of an experiment",
    }
    place = f"on {rule.backend}" if rule.backend else "on every backend"
    limit = {
        "free": "free of charge, of any length and number",
        "time": f"free of charge, each up to {format_duration(rule.limit)}, any number",
        "usd": f"for at most {format_usd_limit(rule.limit)} together",
    }[rule.kind]
    return f"{rule.text}: {what[rule.tool]} {place} start without asking you: {limit}."


def _limit(text: str | None, rule: str) -> tuple[Literal["free", "time", "usd"], float]:
    if text is None:
        return "free", 0.0
    if money := _MONEY.fullmatch(text.strip()):
        return "usd", float(money[1] or money[2])
    try:
        return "time", parse_duration(text)
    except BadDuration as error:
        raise BadRule(f"--allow {rule!r}: {error} For money write for example hf<=5usd.") from None


def _plain(text: str) -> str:
    """``text`` on one line, in printable ASCII."""
    return " ".join(re.sub(r"[^ -~]+", " ", text).split())


def _name(text: str) -> str:
    plain = " ".join(re.sub(r"[^ -~]", "?", text).replace('"', "'").split())
    return plain if len(plain) <= LONGEST_NAME else f"{plain[: LONGEST_NAME - 3]}..."


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
