"""What a person allows in advance at the command line: ``--allow submit_job:local<=30m``.

``TOOL[:PLACE][<=AMOUNT]``. An amount of time holds for each action and speaks only for what is free of charge; an
amount of money holds for everything that the rule allows together; without an amount the rule speaks for what is free
of charge. An action whose price is unknown is allowed by no rule.

What an action is, is read from the question that the server asks, whose first line says it in a fixed form, and must
agree with the call that the model made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

RULE = re.compile(
    r"(?P<tool>[A-Za-z0-9_-]+)(?::(?P<place>[A-Za-z0-9_-]+))?"
    r"(?:\s*<=\s*(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>[A-Za-z]+|\$))?"
)
HOURS = {"s": 1 / 3600, "m": 1 / 60, "min": 1 / 60, "h": 1.0}
MONEY = frozenset({"usd", "$"})
SHORT_NAMES = {"hf": "hf_jobs"}
TOLERANCE = 1e-9

HEADLINE = re.compile(
    r"^(?P<what>.*) on (?P<place>[A-Za-z0-9_-]+)(?: (?P<hardware>[^:]*))?: "
    r"(?:(?P<free>free of charge)|at most (?P<usd>\d+(?:\.\d+)?) USD|price unknown)"
    r"(?:, up to (?P<amount>[0-9.e+-]+) (?P<unit>h|min))? \(digest (?P<digest>[0-9a-f]{6,64})\)\??$"
)
DURATION = re.compile(r"(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>s|m|min|h|d)?")


class BadRule(ValueError):
    """An ``--allow`` that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a server asks consent for. ``usd_worst`` None means that nobody knows."""

    headline: str
    place: str
    hardware: str
    usd_worst: float | None
    hours: float
    digest: str

    @classmethod
    def parse(cls, message: str) -> Asked | None:
        """Read the first line of a question; None if it is not of the form.

        Also None where a second line is of the form too: a name with a line break in it could fake the first.
        """
        matches = [match for line in message.splitlines() if (match := HEADLINE.match(line.strip()))]
        first = message.partition("\n")[0].strip()
        if len(matches) != 1 or matches[0].string != first:
            return None
        match = matches[0]
        worst = 0.0 if match["free"] else (float(match["usd"]) if match["usd"] else None)
        return cls(
            headline=first,
            place=match["place"],
            hardware=(match["hardware"] or "").strip(),
            usd_worst=worst,
            hours=float(match["amount"]) * HOURS[match["unit"]] if match["amount"] else 0.0,
            digest=match["digest"],
        )

    def agrees_with(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the call that led to the question names the same backend and no longer time."""
        backend = arguments.get("backend")
        if isinstance(backend, str) and backend and backend != self.place:
            return False
        hours = _hours(arguments.get("timeout"))
        return hours is None or hours <= self.hours * 1.01 + 0.01  # the question rounds to three digits


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One allowance. ``limit`` in hours for each action, or in US dollars for all together."""

    text: str
    tool: str
    place: str | None = None
    kind: Literal["free", "hours", "usd"] = "free"
    limit: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read ``submit_job:local<=30m``.

        Raises:
            BadRule: it is not of the form TOOL[:PLACE][<=AMOUNT UNIT].
        """
        match = RULE.fullmatch(text.strip())
        unit = (match["unit"] or "").lower() if match else ""
        if match is None or (match["amount"] and unit not in HOURS and unit not in MONEY):
            raise BadRule(
                f"--allow {text!r} is not a rule. Write TOOL:PLACE<=AMOUNT with a unit s, m, h or usd, such as"
                " submit_job:local<=30m or submit_job:hf<=5usd."
            )
        kind: Literal["free", "hours", "usd"] = "free"
        limit = 0.0
        if match["amount"]:
            kind = "usd" if unit in MONEY else "hours"
            limit = float(match["amount"]) * HOURS.get(unit, 1.0)
        place = SHORT_NAMES.get(match["place"], match["place"])
        return cls(text=text.strip(), tool=match["tool"], place=place, kind=kind, limit=limit)

    def covers(self, asked: Asked, *, tool: str, spent_usd: float) -> bool:
        """Whether ``asked``, by a call of ``tool``, is within the rule after ``spent_usd`` were spent under it."""
        if tool != self.tool or (self.place is not None and self.place != asked.place) or asked.usd_worst is None:
            return False
        if self.kind == "usd":
            return spent_usd + asked.usd_worst <= self.limit + TOLERANCE
        if asked.usd_worst > 0:
            return False
        return self.kind == "free" or 0 < asked.hours <= self.limit + TOLERANCE


LOCAL_JOBS = Rule(text="submit_job:local", tool="submit_job", place="local")
"""What ``--yes`` allows: jobs on this machine, which cost no money."""

LOCAL_TRIALS = Rule(text="check_script:local", tool="check_script", place="local")
"""What ``--yes`` allows as well: dry runs, which are shorter than any job."""


def _hours(timeout: Any) -> float | None:
    """Hours of a ``timeout`` argument such as 90, "90", "30m" or "1.5h"; a bare number is seconds."""
    if isinstance(timeout, int | float) and not isinstance(timeout, bool):
        return float(timeout) / 3600
    match = DURATION.fullmatch(timeout.strip().lower()) if isinstance(timeout, str) else None
    if match is None:
        return None
    return float(match["amount"]) * (HOURS | {"d": 24.0})[match["unit"] or "s"]
