"""Serves the approval page until it is interrupted or nobody has looked at it for a while."""

from __future__ import annotations

import socket
import sys
import webbrowser
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from mlintern.common.clock import Clock
from mlintern.server.services import Lab
from mlintern.server.web.page import ApprovalPage

if TYPE_CHECKING:
    import uvicorn

IDLE_SECONDS = 15 * 60.0
LOOK_EVERY_SECONDS = 5.0


async def serve_page(lab: Lab, *, open_in_browser: Callable[[str], object] = webbrowser.open) -> None:
    """Print the page's address on stderr, open it, and serve it on a free loopback port."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listener:
        page = ApprovalPage(lab.approvals, port=listener.getsockname()[1], workspace=str(lab.workspace.root))
        server = uvicorn.Server(uvicorn.Config(page.app, log_level="warning", access_log=False, log_config=None))
        print(f"Decide at {page.address}\nThe address works once. Ctrl-C ends the page.", file=sys.stderr, flush=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_end_when_idle, server, page, lab.clock)
            tasks.start_soon(anyio.to_thread.run_sync, open_in_browser, page.address)
            await server.serve(sockets=[listener])
            tasks.cancel_scope.cancel()


async def _end_when_idle(server: uvicorn.Server, page: ApprovalPage, clock: Clock) -> None:
    seen, since = page.requests, clock.monotonic()
    while clock.monotonic() - since < IDLE_SECONDS:
        await clock.sleep(LOOK_EVERY_SECONDS)
        if page.requests != seen:
            seen, since = page.requests, clock.monotonic()
    server.should_exit = True
