"""``mlintern-server approvals --web``: the questions that wait, as a page in the browser of whoever ran the command.

The address with its token is printed on the terminal and goes to nobody else: no tool result carries it, so no model
learns it. It works once, and becomes a cookie that no script can read. Any other page, also one that rebinds its name
to 127.0.0.1, is refused by Host, Origin and that cookie. Everything shown is escaped; the page runs no script.
"""

from __future__ import annotations

import hmac
import secrets
from html import escape
from importlib import resources
from string import Template
from urllib.parse import parse_qs

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from mlintern.tools.approvals import Approvals, Decision
from mlintern.tools.errors import MlinternError

COOKIE = "mlintern_approvals"
LONGEST_FORM = 16_384
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class ApprovalPage:
    """The page for one workspace at one port. ``token`` opens it, once."""

    def __init__(self, approvals: Approvals, *, port: int, workspace: str) -> None:
        self.token = secrets.token_urlsafe(32)
        self.requests = 0
        self._session = secrets.token_urlsafe(32)
        self._token_used = False
        self._approvals = approvals
        self._workspace = workspace
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self.address = f"http://127.0.0.1:{port}/?token={self.token}"
        self.app = Starlette(
            routes=[
                Route("/", self._show, methods=["GET"]),
                Route("/decide", self._decide, methods=["POST"]),
            ]
        )

    async def _show(self, request: Request) -> Response:
        if refusal := self._refuse_stranger(request):
            return refusal
        if "token" in request.query_params:
            return self._open(request.query_params["token"])
        if not self._is_ours(request):
            return _refuse(403, "Open the address that the command printed.")
        return await self._page()

    def _open(self, token: str) -> Response:
        if self._token_used or not hmac.compare_digest(token.encode(), self.token.encode()):
            return _refuse(403, "This address was used already. Run the command again for a new one.")
        self._token_used = True
        response = RedirectResponse("/", status_code=303, headers=HEADERS)
        response.set_cookie(COOKIE, self._session, httponly=True, samesite="strict", path="/")
        return response

    async def _decide(self, request: Request) -> Response:
        if refusal := self._refuse_stranger(request):
            return refusal
        origin = request.headers.get("origin")
        if origin is None or origin.removeprefix("http://") not in self._hosts or not self._is_ours(request):
            return _refuse(403, "This decision did not come from the page.")
        body = await _read_at_most(request, LONGEST_FORM)
        if body is None:
            return _refuse(413, "The note is too long.")
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
        waiting = await anyio.to_thread.run_sync(lambda: self._approvals.list(state="pending"))
        template = Template((resources.files(__package__) / "approvals.html").read_text(encoding="utf-8"))
        page = template.substitute(
            workspace=escape(self._workspace),
            said=f"<p role=status><strong>{escape(said)}</strong></p>" if said else "",
            questions="\n".join(map(_question, waiting)) or "<p>Nothing waits.</p>",
        )
        return HTMLResponse(page, status_code=status, headers=HEADERS)

    def _refuse_stranger(self, request: Request) -> Response | None:
        self.requests += 1
        if request.headers.get("host") not in self._hosts:
            return _refuse(421, "This page answers on the loopback address only.")
        return None

    def _is_ours(self, request: Request) -> bool:
        return hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), self._session.encode())


def _question(decision: Decision) -> str:
    action = decision.action
    details = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in action.details)
    return f"""<article>
<h2>{escape(action.headline)}</h2>
<dl>{details}</dl>
<form method="post" action="/decide">
<input type="hidden" name="digest" value="{escape(action.consent_digest)}">
<label>Note to the agent, passed on word for word<input name="note" maxlength="2000" autocomplete="off"></label>
<button name="decision" value="approve">Approve</button><button name="decision" value="deny">Deny</button>
</form>
</article>"""


def _refuse(status: int, why: str) -> Response:
    return PlainTextResponse(why + "\n", status_code=status, headers=HEADERS)


async def _read_at_most(request: Request, limit: int) -> bytes | None:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            return None
    return body
