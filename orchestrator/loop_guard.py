"""Notice that an agent goes in circles, say so once, then refuse, then stop.

The rules, all at the tail of the calls only:

* the same call with the same result 3 times; a cycle of 2 or 3 calls 3 times, of 4 to 8 calls twice;
* the same cause of a failure of one tool 5 times, whatever its arguments and whether or not the call itself is marked
  as an error (a check that did not pass, a job that failed);
* 8 of the last 10 calls told nothing that was not known, however they were worded: reworded queries with the same
  items, another limit, sections that are read again;
* 3 turns of near-identical prose without a call.

Waiting is no circle: a poll whose state lawfully stays (queued, running) may repeat 30 times, a cycle around it 20
times, before one hint, and is never refused; `pause_before` slows it instead. A circle that goes on after the hint is
refused, then stops the run. Any other call ends the streak and is a fresh start, unless the same circle comes back a
third time within `MEMORY` calls.
"""

from __future__ import annotations

import difflib
import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mlintern.common.text import cut
from mlintern.orchestrator.result_reading import causes_of_failure, facts_of
from mlintern.orchestrator.signatures import call_key, masked, result_key, text_of
from mlintern.orchestrator.states import is_over, waits

Level = Literal["hint", "refuse", "stop"]
LEVELS: tuple[Level, ...] = ("hint", "refuse", "stop")

LONGEST_CYCLE = 8
REPEATS = {1: 3, 2: 3, 3: 3, 4: 2, 5: 2, 6: 2, 7: 2, 8: 2}
"""Repetitions of a cycle of each length at which the hint is given."""

WAIT_REPEATS_ALONE = 30
WAIT_REPEATS_IN_CYCLE = 20
ERROR_REPEATS = 5
ERROR_STEP = 3
PROSE_REPEATS = 3
PROSE_SIMILARITY = 0.9
PROSE_CHARACTERS = 4_000
MEMORY = 40
"""Calls within which the third return of the same circle is no longer greeted with a hint."""

STALE_WINDOW = 10
STALE_CALLS = 8
"""Of the last `STALE_WINDOW` calls, so many told nothing new."""

MOST_FACTS = 300_000
"""Facts remembered; beyond it the guard starts to learn anew."""

FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Nudge:
    """What the guard has to say. ``text`` is for the model, ``pattern`` names the circle for people and logs."""

    level: Level
    text: str
    pattern: str


@dataclass(frozen=True)
class _Seen:
    """One observed call: ``key`` of the call, ``signature`` of call and result."""

    key: str
    signature: str
    name: str
    quote: str
    waits: bool


@dataclass
class _ErrorStreak:
    """The same cause of one tool: ``times`` in a row for this tool, ``together`` without another tool in between."""

    causes: frozenset[str]
    times: int = 1
    together: int = 1


class LoopGuard:
    """Watches one agent. ``poll_tools`` names the tools that exist to ask for a state again and again."""

    def __init__(self, poll_tools: Collection[str] = ()) -> None:
        self._poll_tools = frozenset(poll_tools)
        self.forget()

    def forget(self) -> None:
        """Start afresh: the user said something new. A compaction is no reason: it must not hide a circle."""
        self._calls: deque[_Seen] = deque(maxlen=LONGEST_CYCLE * (WAIT_REPEATS_IN_CYCLE + 1))
        self._count = 0
        self._runs = dict.fromkeys(REPEATS, 0)
        self._turn: tuple[int, set[str]] | None = None
        self._errors: dict[str, _ErrorStreak] = {}
        self._last_name: str | None = None
        self._refused: dict[str, _Seen] = {}
        self._strikes: dict[frozenset[str], deque[int]] = {}
        self._prose: list[str] = []
        self._known: set[int] = set()
        self._stale: deque[str] = deque(maxlen=STALE_WINDOW)
        self._stale_nudges = 0
        self._nudged_at = -STALE_WINDOW

    def observe(
        self,
        *,
        name: str,
        arguments: Mapping[str, Any],
        result: Any,
        is_error: bool = False,
        turn: int | None = None,
    ) -> Nudge | None:
        """Take note of a call and its result, the refusal of a refused one included; returns what to tell the model.

        ``result`` is a string, a JSON value or a list of content blocks. ``turn`` numbers the assistant turn that the
        call belongs to: equal calls within one turn were decided at once and count once.
        """
        self._prose.clear()
        seen = self._seen(name, arguments, result, is_error)
        if turn is not None:
            if self._turn is None or self._turn[0] != turn:
                self._turn = (turn, set())
            if seen.signature in self._turn[1]:
                return None
            self._turn[1].add(seen.signature)
        if seen.key not in self._refused:
            self._refused.clear()  # the agent moved on; the world may have changed for the refused call, too
        self._count += 1
        self._extend_runs(seen)
        nudges = [*self._circles(), *self._same_error(seen, arguments, result, is_error)]
        nudges += self._nothing_new(seen, arguments, result, quiet=bool(nudges))
        if nudges:
            self._nudged_at = self._count
        return max(nudges, key=lambda nudge: LEVELS.index(nudge.level), default=None)

    def observe_text(self, text: str) -> Nudge | None:
        """Take note of an assistant turn that holds prose and no call."""
        prose = masked(text)[:PROSE_CHARACTERS]
        if not prose:
            return None
        if not all(_similar(prose, earlier) for earlier in self._prose[-(PROSE_REPEATS - 1) :]):
            self._prose.clear()
        self._prose.append(prose)
        beyond = len(self._prose) - PROSE_REPEATS
        if not 0 <= beyond < len(LEVELS):
            return None
        return Nudge(
            level=LEVELS[beyond],
            pattern=f"near-identical text ×{len(self._prose)}",
            text=f"[mlintern guard] Your last {len(self._prose)} turns say nearly the same and call no tool. "
            "Either make the call that comes next, or give the final answer and end.",
        )

    def refusal(self, *, name: str, arguments: Mapping[str, Any]) -> str | None:
        """What to answer (as an error) instead of executing this call; None if it may run."""
        seen = self._refused.get(call_key(name, arguments))
        if seen is None:
            return None
        return (
            f"[mlintern guard] Not executed: this call to {name} was repeated too often. Its last result was:\n"
            f"{seen.quote}\nMake a new plan: a different tool, different arguments, or tell the user what blocks you."
        )

    def pause_before(self, *, name: str, arguments: Mapping[str, Any]) -> float:
        """Seconds that should lie between the last answer to this poll and asking again: 0, then 2, 4, ... 60."""
        key = call_key(name, arguments)
        unchanged, signature = 0, None
        for seen in reversed(self._calls):
            if seen.key != key:
                continue
            if not seen.waits or (signature is not None and seen.signature != signature):
                break
            signature = seen.signature
            unchanged += 1
        if unchanged < 2:
            return 0.0
        return float(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(unchanged - 2, 10)))

    def _seen(self, name: str, arguments: Mapping[str, Any], result: Any, is_error: bool) -> _Seen:
        key = call_key(name, arguments)
        if key in self._refused:
            return self._refused[key]  # a refusal is no new result
        quote = text_of(result)
        return _Seen(
            key=key,
            signature=f"{key}:{result_key(result)}:{is_error:d}",
            name=name,
            quote=cut(quote, 600),
            waits=not is_error and self._waits(name, result),
        )

    def _waits(self, name: str, result: Any) -> bool:
        """Is this the answer of something that lawfully stays as it is?"""
        return waits(result) or (name in self._poll_tools and not is_over(result))

    def _extend_runs(self, seen: _Seen) -> None:
        for length in self._runs:
            same = len(self._calls) >= length and self._calls[-length].signature == seen.signature
            self._runs[length] = self._runs[length] + 1 if same else 0
        self._calls.append(seen)

    def _circles(self) -> Iterator[Nudge]:
        """The longest active cycle, if it reaches one of its levels with this very call."""
        for length in reversed(REPEATS):
            if any(length % part == 0 and self._runs[part] >= length - part for part in range(1, length)):
                continue  # a repetition of something shorter
            circle = [self._calls[-back] for back in range(min(length, len(self._calls)), 0, -1)]
            waits = any(seen.waits for seen in circle)
            repeats = REPEATS[length]
            if waits:
                repeats = WAIT_REPEATS_ALONE if length == 1 else WAIT_REPEATS_IN_CYCLE
            beyond = self._runs[length] - length * (repeats - 1)
            if beyond < 0:
                continue
            step = 2 if length == 1 else length
            if beyond % step == 0 and (level := self._level(circle, beyond // step, waits)):
                yield self._repetition(circle, level, waits)
            return

    def _level(self, circle: list[_Seen], passed: int, waits: bool) -> Level | None:
        """The level that a circle reaches after ``passed`` further steps; None between and beyond them."""
        strikes = self._strikes.setdefault(
            frozenset(seen.signature for seen in circle), deque(maxlen=len(LEVELS) + 1)
        )
        if passed == 0:
            strikes.append(self._count)
        returns = sum(1 for position in strikes if self._count - position <= MEMORY)
        height = passed + max(0, returns - 2)
        if waits and height > 0:
            return None
        return LEVELS[height] if height < len(LEVELS) else None

    def _repetition(self, circle: list[_Seen], level: Level, waits: bool) -> Nudge:
        times = self._runs[len(circle)] // len(circle) + 1
        pattern = f"{' → '.join(seen.name for seen in circle)} ×{times}"
        if level == "refuse":
            self._refused = {seen.key: seen for seen in circle}
        if waits:
            text = (
                f"[mlintern guard] Nothing has changed over {times} polls ({pattern}). Waiting is fine; use the time "
                "for other work, or end with what is known and name the job."
            )
        else:
            what = "the same call" if len(circle) == 1 else f"the same {len(circle)} calls in a circle"
            text = (
                f"[mlintern guard] You made {what} {times} times with the same outcome ({pattern}). Doing it again "
                f"will not change it. {ADVICE[level]}"
            )
        return Nudge(level=level, text=text, pattern=pattern)

    def _same_error(self, seen: _Seen, arguments: Mapping[str, Any], result: Any, is_error: bool) -> Iterator[Nudge]:
        previous, self._last_name = self._last_name, seen.name
        work = _work(seen.name, arguments)
        streak = self._errors.get(work)
        if seen.key in self._refused:
            return  # counted as a circle
        causes = causes_of_failure(result, is_error=is_error, arguments=arguments)
        if not causes:
            if not seen.waits:  # a job that runs has not succeeded yet
                self._errors.pop(work, None)
            return
        if streak is None or not streak.causes & causes:
            self._errors[work] = _ErrorStreak(causes)
            return
        streak.causes |= causes
        streak.times += 1
        streak.together = streak.together + 1 if previous == seen.name else 1
        level: Level | None = "hint" if streak.times == ERROR_REPEATS else None
        # Work in between may be an attempt to correct it: then the hint is all.
        for height, each in enumerate(LEVELS[1:], start=1):
            if streak.together == ERROR_REPEATS + height * ERROR_STEP:
                level = each
        if level == "refuse":
            self._refused[seen.key] = seen
        if level is not None:
            yield Nudge(
                level=level,
                pattern=f"{seen.name}: same error ×{streak.times}",
                text=f"[mlintern guard] {seen.name} failed {streak.times} times in a row with the same error, "
                "whatever the arguments. Read the error again: it is about something else than what you vary. "
                f"{ADVICE[level]}",
            )

    def _nothing_new(self, seen: _Seen, arguments: Mapping[str, Any], result: Any, *, quiet: bool) -> Iterator[Nudge]:
        """Most of the latest calls told only what was known, and it is no circle and no wait."""
        if seen.waits or seen.key in self._refused:
            self._stale.append("waits")
            return
        facts = facts_of(seen.name, arguments, result=result)
        news = bool(facts.hashes - self._known)
        if len(self._known) > MOST_FACTS:
            self._known.clear()
        self._known |= facts.hashes
        self._stale.append("nothing found" if facts.nothing_found else "news" if news else "known")
        known, nothing = self._stale.count("known"), self._stale.count("nothing found")
        if known + nothing < STALE_CALLS or quiet or self._count - self._nudged_at < STALE_WINDOW:
            return
        self._stale_nudges += 1
        hopeless = known == STALE_WINDOW and self._stale_nudges > len(LEVELS) - 1
        yield Nudge(
            level="stop" if hopeless else "hint",
            pattern=f"{known + nothing} of {len(self._stale)} calls told nothing new",
            text=f"[mlintern guard] {known + nothing} of your last {len(self._stale)} calls told you nothing that "
            "you did not know already, however they were worded. Use what you have: decide, act on it, or say what "
            f"is missing. {ADVICE['stop'] if hopeless else ''}".rstrip(),
        )


ADVICE: dict[Level, str] = {
    "hint": "Say what you expected, why it did not happen, and do something else.",
    "refuse": "It will not be executed again now: write a new plan first.",
    "stop": "The run stops here.",
}


def _work(name: str, arguments: Mapping[str, Any]) -> str:
    """What a tool is used for: of a shell, the program. That ``sbatch`` took a job does not mean that the job ran."""
    command = next((arguments[key] for key in ("command", "cmd") if isinstance(arguments.get(key), str)), "")
    program = re.sub(r"^(?:\w+=\S*\s+)*", "", command.strip()).split(maxsplit=1)[:1]
    return " ".join([name, *program])


def _similar(one: str, other: str) -> bool:
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    return matcher.quick_ratio() >= PROSE_SIMILARITY and matcher.ratio() >= PROSE_SIMILARITY
