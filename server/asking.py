"""The one way in which a tool asks a person: before money is spent, something is destroyed or code is run.

In order: what was decided already, what was allowed in advance, the host's own dialog (form elicitation, in both
protocol eras), and, where the host has none, a question that waits in the ledger for the approval card or for
``mlintern-server approve``. No argument, tool or file that a model can reach approves anything.

A tool asks like this. The resolver runs before the body, once a round, and must describe the same action each time;
it stands at module level, since its name travels to the host and back:

    async def consent(script_id: str, ..., ctx: Context[Lab]) -> Asked:
        return await gate.ask(describe(...), ctx)

    async def submit_job(script_id: str, ..., consent: Annotated[Consent, Resolve(consent)], ctx) -> Submitted:
        verdict = await gate.settle(action, consent, ctx, tool="submit_job")
        if verdict.refusal is not None:
            return as_result({**verdict.refusal, ...}, meta=verdict.card)
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio.to_thread
from mcp.server.apps import client_supports_apps
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.elicitation import render_elicitation_schema
from mcp.server.mcpserver import AcceptedElicitation, CancelledElicitation, Context, Elicit, ElicitationResult
from mcp.shared.message import ServerMessageMetadata
from mcp.types import ElicitRequest, ElicitRequestFormParams, ElicitResult
from pydantic import BaseModel, Field, ValidationError

from mlintern.common.clock import Clock
from mlintern.common.commands import shown_command
from mlintern.common.consent import Action
from mlintern.server.apps.approval_card import CardTokens, card_of
from mlintern.server.scopes import may_answer
from mlintern.tools.approvals import Approvals, Decision
from mlintern.tools.errors import BadInput

INPUT_REQUIRED_SINCE = "2026-07-28"
DEFAULT_WORKSPACE = Path("~/.mlintern").expanduser()
UNSEEN_SECONDS = 1.0
"""Nobody reads and answers a question faster; some hosts decline by themselves without showing it."""

BY_COMMAND = (
    "This host cannot ask the user. Show them the command in how_to_approve and what it allows; after they ran it,"
    " call {tool} again with the same arguments."
)
BY_CARD = (
    "The user sees a card that asks them. Wait for their decision, then call {tool} again with the same arguments."
    " If they see none, show them the command in how_to_approve."
)

CLOSED = "The question was closed without an answer."

_asked: ContextVar[dict[str, Action] | None] = ContextVar("_asked", default=None)
"""The actions that the request under way asks about, by the text of the question."""


class Approval(BaseModel):
    """Your decision on exactly this action."""

    # Without a default the box starts unticked, and hosts do not take an empty Enter for a yes.
    approve: bool = Field(
        title="Approve",
        description="Nothing is started, spent, published or destroyed unless this is ticked.",
    )
    # With a default: one host fills in what has none with null, which no string schema takes.
    note: str = Field(default="", title="Note to the agent", description="Passed on word for word.", max_length=2000)


class Verdict(BaseModel):
    """What was found before, or instead of, asking in a dialog."""

    status: Literal["approved", "denied", "cannot_ask"]
    via: str = ""
    note: str = ""
    how_to_approve: str = ""


Asked = Approval | Verdict | Elicit[Approval]
Consent = ElicitationResult[Approval | Verdict]


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The end of the question about one action.

    Attributes:
        note: what a person wrote for the model.
        refusal: None if it may be done now; else the fields ``status``, ``digest``, ``how_to_approve`` and ``note``
            of the tool's result.
        card: ``_meta`` of that result, for hosts that show the approval card.
    """

    note: str = ""
    refusal: dict[str, Any] | None = None
    card: dict[str, Any] | None = None

    def with_note(self, note: str) -> str:
        """``note`` of a tool's result behind the person's own words."""
        return f"The user approved and wrote: {self.note}\n{note}".rstrip() if self.note else note


class Gate:
    """Asks for one action at a time and remembers every answer."""

    def __init__(
        self,
        *,
        approvals: Approvals,
        clock: Clock,
        tokens: CardTokens | None = None,
        workspace: Path | None = None,
        script_text: Callable[[str], str] = lambda script_id: "",
    ) -> None:
        """``workspace`` is named in the command for people whose shell would look into another one.

        ``script_text`` gives the text of a script by its id, for the card.
        """
        self._approvals = approvals
        self._clock = clock
        self._tokens = tokens or CardTokens()
        self._script_text = script_text
        self._where = [] if workspace in (None, DEFAULT_WORKSPACE) else ["--workspace", str(workspace)]

    async def ask(self, action: Action, ctx: Context[Any, Any]) -> Asked:
        """What is known about ``action``, else the question itself.

        The question depends on the action alone: asked again with the same arguments it reads the same, which is
        what lets an answer that comes with a retry count.

        Raises:
            OutOfBudget: the workspace's budget does not hold the action.
        """
        decision = await anyio.to_thread.run_sync(self._look_up, action)
        if decision is None:
            return Verdict(status="approved", via="started before")
        if decision.state in ("approved", "used"):
            return Verdict(status="approved", via=decision.via, note=decision.note)
        how = self.how_to_approve(action)
        if decision.state == "denied":
            return Verdict(status="denied", via=decision.via, note=decision.note, how_to_approve=how)
        if not can_ask(ctx):
            return Verdict(status="cannot_ask", how_to_approve=how)
        answer = await put(action, ctx)
        if isinstance(answer, Verdict):
            return await anyio.to_thread.run_sync(self._deny, action, answer.note)
        return answer

    async def settle(self, action: Action, consent: Consent, ctx: Context[Any, Any], *, tool: str) -> Settled:
        """The end of the question, recorded. An approval is marked as used: act on it next.

        Raises:
            OutOfBudget: the workspace's budget does not hold the action.
            Conflict: the approval was taken back meanwhile.
        """
        verdict = await anyio.to_thread.run_sync(self._settle, action, consent)
        if verdict.status == "approved":
            return Settled(note=verdict.note)
        by_card = (
            verdict.status == "cannot_ask" and client_supports_apps(ctx) and may_answer(ctx.request_context.request)
        )
        note = verdict.note or "The user declined."
        if verdict.status == "cannot_ask":
            note = (BY_CARD if by_card else BY_COMMAND).format(tool=tool)
        refusal = {
            "status": "denied" if verdict.status == "denied" else "approval_required",
            "digest": action.consent_digest,
            "how_to_approve": verdict.how_to_approve or None,
            "note": note,
        }
        if not by_card:
            return Settled(refusal=refusal)
        script = await anyio.to_thread.run_sync(self._script_text, action.script_id) if action.script_id else ""
        return Settled(refusal=refusal, card=card_of(action, self._tokens, tool=tool, script=script))

    def how_to_approve(self, action: Action) -> str:
        """The command that approves ``action``; a person runs it, in any shell."""
        return shown_command("mlintern-server", "approve", action.short_digest, *self._where)

    def _look_up(self, action: Action) -> Decision | None:
        """The decision on ``action``, which may be pending; None if it is a job already, at whatever price."""
        decision = self._approvals.decision(action)
        if decision is None and self._approvals.became_a_job(action):
            return None
        self._approvals.standing(action)
        decision = self._approvals.decision(action)
        if decision is None or (decision.state == "denied" and decision.via == "dialog"):
            # A person who declined in the dialog may think again; a no from the command line stands for a day.
            return self._approvals.pending(action)
        return decision

    def _settle(self, action: Action, consent: Consent) -> Verdict:
        answer = consent.data if isinstance(consent, AcceptedElicitation) else None
        if isinstance(answer, Approval):
            if not answer.approve:
                return self._deny(action, answer.note or "The question was answered without ticking the approval.")
            decision = self._approvals.approve(action.consent_digest, note=answer.note, via="dialog")
            answer = Verdict(status="approved", via="dialog", note=decision.note)
        if answer is None:
            return self._deny(action, CLOSED if isinstance(consent, CancelledElicitation) else "")
        if answer.status == "approved":
            self._approvals.use(action)
        return answer

    def _deny(self, action: Action, note: str) -> Verdict:
        """Record a no of the dialog. ``note`` empty or of ours: the person gave no reason."""
        asked = self._approvals.pending(action).asked_at
        given = note or "The user declined."
        self._approvals.deny(action.consent_digest, note=given, via="dialog")
        unseen = self._clock.now() - asked < UNSEEN_SECONDS
        if unseen and note in ("", CLOSED):
            given += " The answer came at once, so the host may not have shown the question to anybody."
            how = self.how_to_approve(action)
            return Verdict(status="denied", via="dialog", note=given, how_to_approve=how)
        return Verdict(status="denied", via="dialog", note=given)


async def put(action: Action, ctx: Context[Any, Any]) -> Asked:
    """The question about ``action`` with the action as its ``_meta``, or the answer where it is had at once.

    Before 2026-07-28 a question travels from server to client while the call waits; since then it is the result of
    the call, to which `send_actions_along` adds the action.

    Raises:
        BadInput: the host's answer does not fit the question.
    """
    if (ctx.protocol_version or "") >= INPUT_REQUIRED_SINCE:
        asked = _asked.get()
        if asked is not None:
            asked[action.question] = action
        return Elicit(action.question, Approval)
    schema = render_elicitation_schema(Approval)
    params = {"message": action.question, "requestedSchema": schema, "_meta": action.to_meta()}
    answer = await ctx.session.send_request(
        ElicitRequest(params=ElicitRequestFormParams.model_validate(params)),
        ElicitResult,
        metadata=ServerMessageMetadata(related_request_id=ctx.request_id),
    )
    if answer.action != "accept":
        return Verdict(status="denied", via="dialog", note=CLOSED if answer.action == "cancel" else "")
    try:
        return Approval.model_validate(answer.content)
    except ValidationError as error:
        raise BadInput(
            "The host accepted the question without an answer that fits it.",
            next_step="Tell the user; nothing was started.",
        ) from error


def can_ask(ctx: Context[Any, Any]) -> bool:
    """Whether the host shows forms, this connection can carry one, and its token may answer.

    ``elicitation: {}`` means forms. Before 2026-07-28 a question travels from server to client, for which a
    stateless connection has no way back.
    """
    if not may_answer(ctx.request_context.request):
        return False
    capabilities = ctx.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return False
    return (ctx.protocol_version or "") >= INPUT_REQUIRED_SINCE or ctx.session.can_send_request


async def send_actions_along(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Middleware: since 2026-07-28 questions are part of a call's result; each gets its action as ``_meta``."""
    token = _asked.set({})
    try:
        result = await call_next(ctx)
        asked = _asked.get() or {}
    finally:
        _asked.reset(token)
    questions = result.get("inputRequests") if isinstance(result, dict) else None
    for question in (questions or {}).values():
        params = question.get("params") or {}
        if action := asked.get(params.get("message", "")):
            params["_meta"] = {**(params.get("_meta") or {}), **action.to_meta()}
    return result
