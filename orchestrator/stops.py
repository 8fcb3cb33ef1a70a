"""Every way a run can end: a name for programs, a reason for people, an exit code for the shell.

0 done · 1 internal error · 2 usage or configuration · 3 approval needed or denied · 4 model budget ·
5 a limit of the run (turns, time, context, an unfinished plan) · 6 loop guard · 7 the model's service failed ·
8 key or billing · 9 the model refused · 10 no MCP server · 130 interrupted · 143 terminated
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlintern.orchestrator.errors import OrchestratorError
from mlintern.orchestrator.model import AuthFailed, BillingFailed, ModelError

USAGE = 2
INTERNAL = 1


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Why a run ended. ``name`` is stable for programs, ``reason`` is for people, ``exit_code`` for the shell."""

    name: str
    reason: str
    exit_code: int
    details: Mapping[str, Any] = field(default_factory=dict)


def done(text: str) -> Stop:
    return Stop(name="done", reason="The agent finished.", exit_code=0, details={"text": text})


def approval_denied(text: str, questions: list[str]) -> Stop:
    return Stop(
        name="approval_denied",
        reason=f"The agent ended after an approval was denied: {'; '.join(questions)}",
        exit_code=3,
        details={"text": text, "denied": questions},
    )


def budget_exhausted(reason: str) -> Stop:
    return Stop(name="budget_exhausted", reason=reason, exit_code=4)


def max_iterations(count: int) -> Stop:
    return Stop(name="max_iterations", reason=f"The limit of {count} iterations is reached.", exit_code=5)


def max_minutes(minutes: float) -> Stop:
    return Stop(name="max_minutes", reason=f"The limit of {minutes:g} minutes is reached.", exit_code=5)


def hours_over(hours: float) -> Stop:
    return Stop(name="hours_over", reason=f"The {hours:g} hours are over.", exit_code=5)


def plan_unfinished(text: str, steps: list[str]) -> Stop:
    return Stop(
        name="plan_unfinished",
        reason=f"The agent stopped working with open steps in its plan: {'; '.join(steps)}",
        exit_code=5,
        details={"text": text, "open": steps},
    )


def compaction_failed(reason: str) -> Stop:
    return Stop(name="compaction_failed", reason=reason, exit_code=5)


def truncated(text: str) -> Stop:
    return Stop(
        name="truncated",
        reason="The reply was cut at its largest length again and again.",
        exit_code=5,
        details={"text": text},
    )


def loop_detected(pattern: str) -> Stop:
    return Stop(name="loop_detected", reason=f"The agent went in circles: {pattern}", exit_code=6)


def empty_response() -> Stop:
    return Stop(name="empty_response", reason="The model answered with nothing, twice.", exit_code=7)


def paused_too_often(count: int) -> Stop:
    return Stop(name="pause_limit", reason=f"The service paused the reply {count} times.", exit_code=7)


def model_failed(error: ModelError) -> Stop:
    if isinstance(error, AuthFailed):
        return Stop(name="auth_failed", reason=str(error), exit_code=8)
    if isinstance(error, BillingFailed):
        return Stop(name="billing_failed", reason=str(error), exit_code=8)
    return Stop(name="model_failed", reason=f"{type(error).__name__}: {error}", exit_code=7)


def endpoint_unreachable(error: OrchestratorError) -> Stop:
    return Stop(name="endpoint_unreachable", reason=str(error), exit_code=7)


def refused(category: str, explanation: str, *, named_fallback: bool = False) -> Stop:
    about = f" ({category})" if category else ""
    advice = "" if named_fallback else "Another model may answer: --resume the session with --fallback-model ID."
    return Stop(
        name="refused",
        reason=" ".join(part for part in (f"The model refused{about}.", explanation, advice) if part),
        exit_code=9,
        details={"category": category},
    )


def no_servers(reasons: list[str]) -> Stop:
    return Stop(name="no_servers", reason=f"No MCP server is available: {'; '.join(reasons)}", exit_code=10)


def interrupted() -> Stop:
    return Stop(name="interrupted", reason="Interrupted from the keyboard.", exit_code=130)


def terminated() -> Stop:
    return Stop(name="terminated", reason="Asked to end (SIGTERM).", exit_code=143)


def internal(error: BaseException) -> Stop:
    return Stop(name="internal_error", reason=f"{type(error).__name__}: {error}", exit_code=INTERNAL)
