"""``mlintern-server approvals --web``: the questions that wait, as a page in the browser of this machine's user.

The browser is sent here by a file that only the user can read, with a token that works once; its command line, which
every process can read, has the file's name alone. Or the user types a code that the terminal shows. No tool result
carries either, so no model learns them. Both become a cookie that no script can read. Any other page, also one that
rebinds its name to 127.0.0.1, is refused by Host, Origin and that cookie. Everything shown is escaped; the page runs
no script.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from html import escape
from importlib import resources
from string import Template
from urllib.parse import parse_qs

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from mlintern.common.consent import Action
from mlintern.common.text import printable
from mlintern.tools.approvals import Approvals, Decision
from mlintern.tools.errors import MlinternError

COOKIE = "mlintern_approvals"
LONGEST_FORM = 16_384
MOST_WRONG_CODES = 5
CODE_FORM = """<!doctype html><html lang="en"><meta charset="utf-8"><title>mlintern: approvals</title>
<form method="post" action="/code"><label>The code that the command printed
<input name="code" autocomplete="off" autofocus maxlength="20"></label> <button>Open</button></form></html>"""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class ApprovalPage:
    """The page for one workspace at one port. ``token`` opens it, once."""

    def __init__(
        self, approvals: Approvals, *, port: int, workspace: str, script_text: Callable[[str], str] = lambda _: ""
    ) -> None:
        self.token = secrets.token_urlsafe(32)
        self.requests = 0
        self._session = secrets.token_urlsafe(32)
        self._token_used = False
        self.code = f"{secrets.token_hex(2)}-{secrets.token_hex(2)}"
        self._wrong_codes = 0
        self._approvals = approvals
        self._workspace = workspace
        self._script_text = script_text
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self.plain_address = f"http://127.0.0.1:{port}/"
        self.address = f"{self.plain_address}?token={self.token}"
        self.app = Starlette(
            routes=[
                Route("/", self._show, methods=["GET"]),
                Route("/decide", self._decide, methods=["POST"]),
                Route("/code", self._take_code, methods=["POST"]),
            ]
        )

    async def _show(self, request: Request) -> Response:
        if refusal := self._refuse_stranger(request):
            return refusal
        if "token" in request.query_params:
            return self._open(request.query_params["token"])
        if not self._is_ours(request):
            return HTMLResponse(CODE_FORM, status_code=403, headers=HEADERS)
        return await self._page()

    def _open(self, token: str) -> Response:
        if self._token_used or not hmac.compare_digest(token.encode(), self.token.encode()):
            return _refuse(403, "This address was used already. Run the command again for a new one.")
        self._token_used = True
        return self._let_in()

    async def _take_code(self, request: Request) -> Response:
        if refusal := self._refuse_stranger(request):
            return refusal
        body = await _read_at_most(request, LONGEST_FORM)
        if not self._has_our_origin(request) or body is None or self._wrong_codes >= MOST_WRONG_CODES:
            return _refuse(403, "Run the command again for a new code.")
        given = parse_qs(body.decode(errors="replace")).get("code", [""])[-1].strip().lower()
        if not hmac.compare_digest(given.encode(), self.code.encode()):
            self._wrong_codes += 1
            return HTMLResponse(CODE_FORM, status_code=403, headers=HEADERS)
        return self._let_in()

    def _let_in(self) -> Response:
        response = RedirectResponse("/", status_code=303, headers=HEADERS)
        # Lax, as the way here may begin in a local file; what decides is a POST, whose Origin is checked.
        response.set_cookie(COOKIE, self._session, httponly=True, samesite="lax", path="/")
        return response

    async def _decide(self, request: Request) -> Response:
        if refusal := self._refuse_stranger(request):
            return refusal
        if not self._has_our_origin(request) or not self._is_ours(request):
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

    def _refuse_stranger(self, request: Request) -> Response | None:
        self.requests += 1
        if request.headers.get("host") not in self._hosts:
            return _refuse(421, "This page answers on the loopback address only.")
        return None

    def _has_our_origin(self, request: Request) -> bool:
        origin = request.headers.get("origin")
        return origin is not None and origin.removeprefix("http://") in self._hosts

    def _is_ours(self, request: Request) -> bool:
        return hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), self._session.encode())


def _question(action: Action, script: str) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in action.lines)
    whole = escape(printable(script, keep="\n\t"))
    count = len(script.splitlines())
    code = f"<details><summary>The whole script, {count} lines</summary><pre tabindex=0>{whole}</pre></details>"
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


def _refuse(status: int, why: str) -> Response:
    return PlainTextResponse(why + "\n", status_code=status, headers=HEADERS)


async def _read_at_most(request: Request, limit: int) -> bytes | None:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            return None
    return body
