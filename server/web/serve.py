"""Serves the approval page, or the live page, until it is interrupted or nobody has looked at it for a while."""

from __future__ import annotations

import socket
import sys
import webbrowser
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from mlintern.common.clock import Clock
from mlintern.common.files import write_durably
from mlintern.server.services import Lab
from mlintern.server.web.door import LoopbackPage
from mlintern.server.web.page import ApprovalPage

if TYPE_CHECKING:
    import uvicorn

IDLE_SECONDS = 15 * 60.0
LOOK_EVERY_SECONDS = 5.0
WAY_IN = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={address}">\n'
"""What the browser is given to open: its command line, unlike this file, can be read by every process."""


async def serve_page(lab: Lab, *, open_in_browser: Callable[[str], object] = webbrowser.open) -> None:
    """Serve the page where questions are decided."""

    def make(port: int) -> LoopbackPage:
        root = str(lab.workspace.root)
        return ApprovalPage(lab.approvals, port=port, workspace=root, script_text=lab.script_text)

    await _serve(lab, make, said="Decide at", name="approvals", open_in_browser=open_in_browser)


async def serve_live(lab: Lab, *, open_in_browser: Callable[[str], object] = webbrowser.open) -> None:
    """Serve the live page of the workspace."""
    from mlintern.server.web.live import LivePage

    def make(port: int) -> LoopbackPage:
        return LivePage(lab, port=port)

    await _serve(lab, make, said="Look at", name="live", open_in_browser=open_in_browser)


async def _serve(
    lab: Lab, make: Callable[[int], LoopbackPage], *, said: str, name: str, open_in_browser: Callable[[str], object]
) -> None:
    """Print the page's address and code on stderr, open it, and serve it on a free loopback port."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        page = make(port)
        config = uvicorn.Config(
            page.app, log_level="warning", access_log=False, log_config=None, timeout_graceful_shutdown=2
        )
        server = uvicorn.Server(config)
        print(
            f"{said} {page.plain_address} with the code {page.code}\nCtrl-C ends the page.",
            file=sys.stderr,
            flush=True,
        )
        way_in = lab.workspace.folder("pages") / f"{name}-{port}.html"
        try:
            write_durably(way_in, WAY_IN.format(address=page.address).encode(), mode=0o600)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_end_when_idle, server, page, lab.clock)
                tasks.start_soon(anyio.to_thread.run_sync, open_in_browser, way_in.as_uri())
                await server.serve(sockets=[listener])
                tasks.cancel_scope.cancel()
        finally:
            way_in.unlink(missing_ok=True)


async def _end_when_idle(server: uvicorn.Server, page: LoopbackPage, clock: Clock) -> None:
    seen, since = page.requests, clock.monotonic()
    while clock.monotonic() - since < IDLE_SECONDS:
        await clock.sleep(LOOK_EVERY_SECONDS)
        if page.requests != seen:
            seen, since = page.requests, clock.monotonic()
    server.should_exit = True
