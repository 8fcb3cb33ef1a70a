"""Who may see a page on the loopback interface: the user who ran the command, nobody else on this machine or the web.

The browser is sent here by a file that only the user can read, with a token that works once; its command line, which
every process can read, has the file's name alone. Or the user types a code that the terminal shows. No tool result
carries either, so no model learns them. Both become a cookie that no script can read. Any other page, also one that
rebinds its name to 127.0.0.1, is refused by Host, Origin and that cookie.
"""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

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


class LoopbackPage:
    """A page at one port. ``token`` opens it, once; ``code`` does until it was guessed wrong too often."""

    app: Starlette

    def __init__(self, *, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        self.code = f"{secrets.token_hex(2)}-{secrets.token_hex(2)}"
        self.requests = 0
        self.plain_address = f"http://127.0.0.1:{port}/"
        self.address = f"{self.plain_address}?token={self.token}"
        self._session = secrets.token_urlsafe(32)
        self._token_used = False
        self._wrong_codes = 0
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def page(self, request: Request) -> Response:
        """The page itself, for a user who was let in."""
        raise NotImplementedError

    def door(self) -> list[Route]:
        """The routes by which one comes in."""
        return [
            Route("/", self._show, methods=["GET"]),
            Route("/code", self._take_code, methods=["POST"]),
        ]

    def refuse(self, request: Request) -> Response | None:
        """The refusal of a request that does not come from somebody who was let in; None if it does."""
        if refusal := self._refuse_stranger(request):
            return refusal
        return None if self._is_ours(request) else refused(403, "Open the page from the terminal first.")

    async def _show(self, request: Request) -> Response:
        if refusal := self._refuse_stranger(request):
            return refusal
        if "token" in request.query_params:
            return self._open(request.query_params["token"])
        if not self._is_ours(request):
            return HTMLResponse(CODE_FORM, status_code=403, headers=HEADERS)
        return await self.page(request)

    def _open(self, token: str) -> Response:
        if self._token_used or not hmac.compare_digest(token.encode(), self.token.encode()):
            return refused(403, "This address was used already. Run the command again for a new one.")
        self._token_used = True
        return self._let_in()

    async def _take_code(self, request: Request) -> Response:
        if refusal := self._refuse_stranger(request):
            return refusal
        body = await read_at_most(request, LONGEST_FORM)
        if not self._has_our_origin(request) or body is None or self._wrong_codes >= MOST_WRONG_CODES:
            return refused(403, "Run the command again for a new code.")
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

    def _refuse_stranger(self, request: Request) -> Response | None:
        self.requests += 1
        if request.headers.get("host") not in self._hosts:
            return refused(421, "This page answers on the loopback address only.")
        return None

    def _has_our_origin(self, request: Request) -> bool:
        origin = request.headers.get("origin")
        return origin is not None and origin.removeprefix("http://") in self._hosts

    def _is_ours(self, request: Request) -> bool:
        return hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), self._session.encode())


def refused(status: int, why: str) -> Response:
    return PlainTextResponse(why + "\n", status_code=status, headers=HEADERS)


async def read_at_most(request: Request, limit: int) -> bytes | None:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            return None
    return body
