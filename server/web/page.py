"""``mlintern-server approvals --web``: the questions that wait, as a page in the browser of this machine's user.

`door` says who gets in. Everything shown is escaped; the page runs no script.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from importlib import resources
from string import Template
from urllib.parse import parse_qs

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from mlintern.common.consent import Action
from mlintern.common.text import printable
from mlintern.server.web.door import HEADERS, LONGEST_FORM, LoopbackPage, read_at_most, refused
from mlintern.tools.approvals import Approvals, Decision
from mlintern.tools.errors import MlinternError


class ApprovalPage(LoopbackPage):
    """The page for one workspace at one port."""

    def __init__(
        self, approvals: Approvals, *, port: int, workspace: str, script_text: Callable[[str], str] = lambda _: ""
    ) -> None:
        super().__init__(port=port)
        self._approvals = approvals
        self._workspace = workspace
        self._script_text = script_text
        self.app = Starlette(routes=self.routes())

    def routes(self) -> list[Route]:
        return [*self.door(), Route("/decide", self._decide, methods=["POST"])]

    async def page(self, request: Request) -> Response:
        return await self._page()

    async def _decide(self, request: Request) -> Response:
        if refusal := self._refuse_stranger(request):
            return refusal
        if not self._has_our_origin(request) or not self._is_ours(request):
            return refused(403, "This decision did not come from the page.")
        body = await read_at_most(request, LONGEST_FORM)
        if body is None:
            return refused(413, "The note is too long.")
        form = {name: values[-1] for name, values in parse_qs(body.decode(errors="replace")).items()}
        try:
            decision = await anyio.to_thread.run_sync(self._record, form)
        except MlinternError as error:
            return await self._page(said=str(error), status=409)
        return await self._page(said=f"{decision.state.capitalize()}: {decision.action.headline}")

    def _record(self, form: dict[str, str]) -> Decision:
        act = self._approvals.approve if form.get("decision") == "approve" else self._approvals.deny
        return act(form.get("digest", ""), note=form.get("note", ""), via="approval page")

    async def _page(self, *, said: str = "", status: int = 200) -> Response:
        questions = await anyio.to_thread.run_sync(self._questions)
        template = Template((resources.files(__package__) / "approvals.html").read_text(encoding="utf-8"))
        page = template.substitute(
            workspace=escape(self._workspace),
            said=f"<p role=status><strong>{escape(said)}</strong></p>" if said else "",
            questions="\n".join(questions) or "<p>Nothing waits.</p>",
        )
        return HTMLResponse(page, status_code=status, headers=HEADERS)

    def _questions(self) -> list[str]:
        waiting = [decision.action for decision in self._approvals.list(state="pending")]
        scripts = [self._script_text(action.script_id) if action.script_id else "" for action in waiting]
        return [_question(action, script) for action, script in zip(waiting, scripts, strict=True)]


def _question(action: Action, script: str) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in action.lines)
    whole = escape(printable(script, keep="\n\t"))
    count = len(script.splitlines())
    shown = f"<pre tabindex=0 role=region aria-label=Script>{whole}</pre>"
    code = f"<details><summary>The whole script, {count} lines</summary>{shown}</details>"
    return f"""<article>
<h2>{escape(action.headline)}</h2>
<ul>{lines}</ul>
{code if script else ""}
<form method="post" action="/decide">
<input type="hidden" name="digest" value="{escape(action.consent_digest)}">
<label>Note to the agent, passed on word for word<input name="note" maxlength="2000" autocomplete="off"></label>
<button name="decision" value="approve">Approve</button><button name="decision" value="deny">Deny</button>
</form>
</article>"""
