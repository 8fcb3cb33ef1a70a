"""What must not go on for ever: how often in a row it may happen, and what the model is told each time."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PAUSES = 10
MAX_TRUNCATIONS = 3
MAX_PLAN_PROMPTS = 2
MAX_REPAIRS = 2
CONTINUE = "[mlintern loop] Your reply was empty. Please continue."
CUT_TEXT = "[mlintern loop] Your reply was cut at its largest length. Continue exactly where it ended."
CUT_CALLS = (
    "[mlintern loop] Your reply was cut at its largest length. Not executed: {names}. Make smaller calls, one at a"
    " time."
)
OPEN_PLAN = (
    "[mlintern loop] Your plan still has open steps: {steps}. Carry on with the next one, or update the plan if it no"
    " longer holds. If you are blocked, say what you need."
)


@dataclass
class Streaks:
    """How often in a row something happened that must not go on for ever. Any completed batch of calls ends them."""

    pauses: int = 0
    truncations: int = 0
    empty: int = 0
    plan_prompts: int = 0
    repairs: int = 0
