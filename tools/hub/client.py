"""The one way to the Hugging Face Hub: `HfApi` on worker threads, with time-outs, and the token for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import anyio
import anyio.to_thread

from mlintern.tools.errors import Offline
from mlintern.tools.hub.addresses import HOME
from mlintern.tools.hub.errors import SERVICE, Purpose, hub_errors, shape_errors

if TYPE_CHECKING:
    from huggingface_hub import HfApi, HfFileSystem

CONNECT_SECONDS, READ_SECONDS, CALL_SECONDS = 10.0, 30.0, 120.0

T = TypeVar("T")
_client_factory = threading.Lock()
_installed = False


class Unanswered(Offline):
    """The time for a call is up, and the call may be going on."""


def hub_token(environ: Mapping[str, str]) -> str | None:
    """The token for the Hub of ``environ``: ``HF_TOKEN``, else what ``hf auth login`` saved, for huggingface.co only.

    `huggingface_hub.get_token` reads the environment at import; this one reads it now.
    """
    if given := environ.get("HF_TOKEN", "").strip():
        return given
    if (environ.get("HF_ENDPOINT") or HOME).rstrip("/") != HOME:
        return None
    home = environ.get("HF_HOME") or f"{environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    path = Path(environ.get("HF_TOKEN_PATH") or f"{home}/token").expanduser()
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


class HubClient:
    """Calls `HfApi` methods off the event loop.

    Endpoint and token (``HF_ENDPOINT``, ``HF_TOKEN``, else the token saved by ``hf auth login``) are read for every
    call. A saved token goes to huggingface.co only; to another endpoint goes only what ``HF_TOKEN`` says.
    """

    def __init__(self, *, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ

    @property
    def endpoint(self) -> str:
        return (self._environ.get("HF_ENDPOINT") or HOME).rstrip("/")

    def token(self) -> str | Literal[False]:
        """The token for `endpoint`, or False for none."""
        return hub_token(self._environ) or False

    def cache(self) -> Path:
        """Where files of the Hub are kept; huggingface_hub itself reads the environment at import alone."""
        given = self._environ.get("HF_HUB_CACHE") or self._environ.get("HUGGINGFACE_HUB_CACHE")
        home = self._environ.get("HF_HOME") or f"{self._environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
        return Path(given or f"{home}/hub").expanduser()

    def api(self) -> HfApi:
        """An `HfApi` for this moment's endpoint and token; its calls block and may wait `READ_SECONDS`."""
        from huggingface_hub import HfApi

        _set_time_outs()
        return HfApi(endpoint=self.endpoint, token=self.token(), library_name="mlintern")

    def filesystem(self) -> HfFileSystem:
        """An fsspec filesystem over the Hub that keeps no listing of another call."""
        from huggingface_hub import HfFileSystem

        _set_time_outs()
        return HfFileSystem(endpoint=self.endpoint, token=self.token(), skip_instance_cache=True)

    async def call(
        self, what: str, function: Callable[[HfApi], T], *, purpose: Purpose = "read", seconds: float = CALL_SECONDS
    ) -> T:
        """``function`` with an `HfApi` on a worker thread; ``what`` names the thing in errors.

        Args:
            purpose: what errors are about: reading, changing something, or Hugging Face Jobs.
            seconds: how long the caller waits. The thread is left to itself then, and may still finish.

        Raises:
            NotFound: no such repository, revision or file (or it is private and the token cannot see it).
            Blocked: gated or forbidden.
            Conflict, BadInput: the Hub says that the change does not fit what is there, or is malformed.
            RateLimited, Offline, ServiceError: as they say.
        """

        def run() -> T:
            with shape_errors(what), hub_errors(what, purpose=purpose):
                return function(self.api())

        with anyio.move_on_after(seconds):
            return await anyio.to_thread.run_sync(run, abandon_on_cancel=True)
        raise Unanswered(
            f"The Hub did not answer about {what} within {seconds:.0f} s.",
            service=SERVICE,
            next_step="Try again.",
        )


def _set_time_outs() -> None:
    """huggingface_hub's own client waits for ever; this one does not. Set once for the process."""
    global _installed
    with _client_factory:
        if _installed:
            return
        import httpx2
        from huggingface_hub import set_client_factory
        from huggingface_hub.utils._http import hf_request_event_hook
        from huggingface_hub.utils.tqdm import disable_progress_bars

        def client() -> httpx2.Client:
            return httpx2.Client(
                event_hooks={"request": [hf_request_event_hook]},
                follow_redirects=True,
                timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            )

        set_client_factory(client)
        disable_progress_bars()
        _installed = True
