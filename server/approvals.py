"""The gate: every tool that spends money or destroys something passes here, and a person decides.

In order: what was decided already, what was allowed in advance, the host's own dialog (form elicitation, in both
protocol eras), and, where the host has none, a question that waits in the ledger for ``mlintern-server approve``.
No argument, tool or file that a model can reach approves anything.

A tool asks like this. The resolver runs before the body, once a round, and must describe the same action each time;
it stands at module level, since its name travels to the host and back:

    async def consent(script_id: str, ..., ctx: Context[Lab]) -> Verdict | Elicit[Approval]:
        return await gate.ask(describe(...), ctx)

    async def submit_job(script_id: str, ..., consent: Annotated[Consent, Resolve(consent)]) -> Submitted:
        verdict = await gate.settle(action, consent)
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Literal

import anyio.to_thread
from mcp.server.mcpserver import AcceptedElicitation, CancelledElicitation, Context, Elicit, ElicitationResult
from pydantic import BaseModel, Field

from mlintern.common.clock import Clock
from mlintern.tools.approvals import Action, Approvals, Decision

INPUT_REQUIRED_SINCE = "2026-07-28"
DEFAULT_WORKSPACE = Path("~/.mlintern").expanduser()
UNSEEN_SECONDS = 1.0
"""Nobody reads and answers a question faster; some hosts decline by themselves without showing it."""


class Approval(BaseModel):
    """Your decision on exactly this action."""

    # Without a default the box starts unticked, and hosts do not take an empty Enter for a yes.
    approve: bool = Field(
        title="Approve",
        description="Nothing is started, spent, published or destroyed unless this is ticked.",
    )
    note: str | None = Field(
        default=None, title="Note to the agent", description="Passed on word for word.", max_length=2000
    )


class Verdict(BaseModel):
    """What the gate found before, or instead of, asking in a dialog."""

    status: Literal["approved", "denied", "cannot_ask"]
    via: str = ""
    note: str = ""
    how_to_approve: str = ""


Consent = ElicitationResult[Approval | Verdict]


class Gate:
    """Asks for one action at a time and remembers every answer."""

    def __init__(self, *, approvals: Approvals, clock: Clock, workspace: Path | None = None) -> None:
        """``workspace`` is named in the command for people whose shell would look into another one."""
        self._approvals = approvals
        self._clock = clock
        self._where = [] if workspace in (None, DEFAULT_WORKSPACE) else ["--workspace", str(workspace)]

    async def ask(self, action: Action, ctx: Context[Any, Any]) -> Verdict | Elicit[Approval]:
        """What is known about ``action``, else the question itself.

        The question depends on the action alone: asked again with the same arguments it reads the same, which is
        what lets an answer that comes with a retry count.

        Raises:
            OutOfBudget: the workspace's budget does not hold the action.
        """
        decision = await anyio.to_thread.run_sync(self._look_up, action)
        if decision.state in ("approved", "used"):
            return Verdict(status="approved", via=decision.via, note=decision.note)
        if decision.state == "denied":
            return Verdict(
                status="denied", via=decision.via, note=decision.note, how_to_approve=self.how_to_approve(action)
            )
        if not can_ask(ctx):
            return Verdict(status="cannot_ask", how_to_approve=self.how_to_approve(action))
        return Elicit(question(action), Approval)

    async def settle(self, action: Action, consent: Consent) -> Verdict:
        """The verdict on ``action``, recorded; an approval is marked as used, so act on it next.

        Raises:
            OutOfBudget: the workspace's budget does not hold the action.
            Conflict: the approval was taken back meanwhile.
        """
        return await anyio.to_thread.run_sync(self._settle, action, consent)

    def how_to_approve(self, action: Action) -> str:
        """The command that approves ``action``; a person runs it, in any shell."""
        return shlex.join(["mlintern-server", "approve", action.short_digest, *self._where])

    def _look_up(self, action: Action) -> Decision:
        self._approvals.standing(action)
        decision = self._approvals.decision(action.digest)
        if decision is None or (decision.state == "denied" and decision.via == "dialog"):
            # Whoever declined in the dialog may have changed their mind; a no from the command line stands for a day.
            return self._approvals.pending(action)
        # What is a job already keeps the price that it began with.
        settled = decision.state == "used" and self._approvals.became_a_job(action.digest)
        if decision.state != "denied" and not settled and action.costs_more_than(decision.action):
            return self._approvals.pending(action)  # prices rose: a yes to less is no yes to more
        return decision

    def _settle(self, action: Action, consent: Consent) -> Verdict:
        answer = consent.data if isinstance(consent, AcceptedElicitation) else None
        if isinstance(answer, Verdict):
            verdict = answer
        elif isinstance(answer, Approval) and answer.approve:
            decision = self._approvals.approve(action.digest, note=answer.note or "", via="dialog")
            verdict = Verdict(status="approved", via="dialog", note=decision.note)
        else:
            verdict = self._record_denial(action, consent)
        if verdict.status == "approved":
            self._approvals.use(action.digest)
        return verdict

    def _record_denial(self, action: Action, consent: Consent) -> Verdict:
        if isinstance(consent, AcceptedElicitation):
            note = getattr(consent.data, "note", None) or "The question was answered without ticking the approval."
        elif isinstance(consent, CancelledElicitation):
            note = "The question was closed without an answer."
        else:
            note = "The user declined."
        asked = self._approvals.pending(action).asked_at
        self._approvals.deny(action.digest, note=note, via="dialog")
        unseen = self._clock.now() - asked < UNSEEN_SECONDS
        if unseen and not isinstance(consent, AcceptedElicitation):
            note += " The answer came at once, so the host may not have shown the question to anybody."
            return Verdict(status="denied", via="dialog", note=note, how_to_approve=self.how_to_approve(action))
        return Verdict(status="denied", via="dialog", note=note)


def question(action: Action) -> str:
    """The question: everything that decides on the first line, since hosts cut after about three; then details."""
    return "\n".join([f"{action.headline}?", *action.lines])


def can_ask(ctx: Context[Any, Any]) -> bool:
    """Whether the host shows forms and this connection can carry one.

    ``elicitation: {}`` means forms. Before 2026-07-28 a question travels from server to client, for which a
    stateless connection has no way back.
    """
    capabilities = ctx.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return False
    return (ctx.protocol_version or "") >= INPUT_REQUIRED_SINCE or ctx.session.can_send_request
