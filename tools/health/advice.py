"""What to do about the learning rate, said from the settings that the run logged, and never both ways at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mlintern.tools.health.findings import Finding
from mlintern.tools.health.series import Run

LOWER, RAISE = "Lower the learning rate", "Raise the learning rate"
_HIGH = 5e-4
_LOW = 1e-7


def slower(run: Run) -> str:
    """Lower the learning rate, and from what: the highest that was logged."""
    rate = _highest(run)
    return f"{LOWER} (it went up to {rate:.2g}; try {rate / 3:.1g} to {rate / 10:.1g})" if rate else LOWER


def faster(run: Run) -> str:
    """Raise the learning rate, unless it is high already: then it is not what holds the run back."""
    rate = _highest(run)
    if rate is None:
        return f"{RAISE} (by 3 to 10 times)"
    if rate >= _HIGH:
        return f"The learning rate of {rate:.2g} is high enough: look for what keeps it from being used"
    return f"{RAISE} (it is at most {rate:.2g}; try {rate * 3:.1g} to {rate * 10:.1g})"


def without_contradictions(findings: Sequence[Finding]) -> list[Finding]:
    """Where one finding says to lower the learning rate, no other says to raise it."""
    if not any(LOWER.lower() in finding.advice.lower() for finding in findings):
        return list(findings)
    return [finding.model_copy(update={"advice": _calmed(finding.advice)}) for finding in findings]


def _calmed(advice: str) -> str:
    if not advice.startswith(RAISE):
        return advice
    _, found, rest = advice.partition(", ")
    return rest[:1].upper() + rest[1:] if found else "See to the other findings first."


def _highest(run: Run) -> float | None:
    rates: Iterable[float] = run["learning_rate"].values
    highest = max(rates, default=0.0)
    return highest if highest > _LOW / 1e6 else None
