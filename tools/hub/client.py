"""The one way to the Hugging Face Hub: `HfApi` on worker threads, with time-outs, and its errors in our words."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio
import anyio.to_thread

from mlintern.tools.errors import (
    BadInput,
    Blocked,
    Conflict,
    MlinternError,
    NotFound,
    Offline,
    RateLimited,
    ServiceError,
)
from mlintern.tools.hub.addresses import HOME

if TYPE_CHECKING:
    from huggingface_hub import HfApi, HfFileSystem

SERVICE = "huggingface"
CONNECT_SECONDS, READ_SECONDS, CALL_SECONDS = 10.0, 30.0, 120.0

T = TypeVar("T")
_client_factory = threading.Lock()
_installed = False


class Unanswered(Offline):
    """The time for a call is up, and the call may be going on."""


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
        given = self._environ.get("HF_TOKEN")
        if given:
            return given
        if self.endpoint != HOME:
            return False
        from huggingface_hub import get_token

        return get_token() or False

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
        self, what: str, function: Callable[[HfApi], T], *, writes: bool = False, seconds: float = CALL_SECONDS
    ) -> T:
        """``function`` with an `HfApi` on a worker thread; ``what`` names the thing in errors.

        Args:
            writes: errors say what the token lacks for changing things.
            seconds: how long the caller waits. The thread is left to itself then, and may still finish.

        Raises:
            NotFound: no such repository, revision or file (or it is private and the token cannot see it).
            Blocked: gated or forbidden.
            Conflict, BadInput: the Hub says that the change does not fit what is there, or is malformed.
            RateLimited, Offline, ServiceError: as they say.
        """

        def run() -> T:
            with hub_errors(what, writes=writes):
                return function(self.api())

        with anyio.move_on_after(seconds):
            return await anyio.to_thread.run_sync(run, abandon_on_cancel=True)
        raise Unanswered(
            f"The Hub did not answer about {what} within {seconds:.0f} s.",
            service=SERVICE,
            next_step="Try again.",
        )


@contextmanager
def hub_errors(what: str, *, writes: bool = False) -> Iterator[None]:
    """Errors of huggingface_hub inside the block, as ours; ``writes`` as for `HubClient.call`."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except MlinternError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise Offline(
            "HF_HUB_OFFLINE is set, so the Hub is not asked.",
            service=SERVICE,
            next_step="Unset it, or give a local path.",
        ) from error
    except errors.HFValidationError as error:
        raise BadInput(f"{what} is not a Hub id: {error}.", next_step="Give `name` or `org/name`.") from error
    except errors.HfHubHTTPError as error:
        raise (_refused_write(what, error) if writes else None) or _answered(what, error) from error
    except errors.LocalEntryNotFoundError as error:
        raise Offline(
            f"{what} is not in the Hub cache of this machine, and the Hub cannot be reached: {_one_line(error)}",
            service=SERVICE,
            next_step="Check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give a local path.",
        ) from error
    except errors.EntryNotFoundError as error:
        raise NotFound(f"{what} is not there: {_one_line(error)}", next_step="browse_hub lists the files.") from error
    except httpx2.TimeoutException as error:
        raise Offline(
            f"The Hub did not answer about {what} in time.", service=SERVICE, next_step="Try again later."
        ) from error
    except httpx2.TransportError as error:
        raise Offline(
            f"The Hub cannot be reached: {_one_line(error)}.",
            service=SERVICE,
            next_step="Check the network and HF_ENDPOINT, or give a local path.",
        ) from error


def _answered(what: str, error: Any) -> MlinternError:
    """An error answer of the Hub; the header X-Error-Code decides before the status does."""
    from huggingface_hub import errors
    from huggingface_hub.utils._http import parse_ratelimit_headers

    response = error.response
    status = response.status_code if response is not None else None
    said = _one_line(error.server_message or "")
    if isinstance(error, errors.GatedRepoError):
        return Blocked(
            f"{what} is gated{f': {said}' if said else '.'}",
            service=SERVICE,
            http_status=status,
            next_step="Accept its conditions on its page while logged in, and set HF_TOKEN to that account's token.",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return NotFound(f"{what} has no such revision.", next_step="Leave `revision` out for the newest.")
    if isinstance(error, errors.RepositoryNotFoundError) or (status == 401 and not said):
        return NotFound(
            f"The Hub has no {what} that can be seen with this access.",
            next_step="Check the spelling with search_hub; if it is private, set HF_TOKEN.",
        )
    if isinstance(error, errors.RemoteEntryNotFoundError) or status == 404:
        return NotFound(f"{what} is not there{f': {said}' if said else '.'}", next_step="browse_hub lists the files.")
    if status == 429:
        limits = parse_ratelimit_headers(response.headers)
        wait = response.headers.get("retry-after")
        seconds = limits.reset_in_seconds if limits else float(wait) if wait and wait.isdigit() else None
        return RateLimited(
            "The Hub asks to wait.",
            service=SERVICE,
            http_status=429,
            retry_after_seconds=seconds,
            next_step="Wait as long, or set HF_TOKEN for a larger allowance.",
        )
    if status in (401, 403):
        return Blocked(
            f"The Hub refuses {what} ({status}){f': {said}' if said else '.'}",
            service=SERVICE,
            http_status=status,
            next_step="Set HF_TOKEN to a token that may read it.",
        )
    return ServiceError(
        f"The Hub answered {status} about {what}{f': {said}' if said else '.'}",
        service=SERVICE,
        http_status=status,
        next_step="Try again later." if status and status >= 500 else "",
    )


def _refused_write(what: str, error: Any) -> MlinternError | None:
    """An error answer to a change, where it means something else than to a question; None where it does not."""
    from huggingface_hub import errors

    status = error.response.status_code if error.response is not None else None
    said = _one_line(error.server_message or "")
    because = f": {said}" if said else "."
    if isinstance(error, errors.GatedRepoError | errors.RevisionNotFoundError):
        return None
    if isinstance(error, errors.RepositoryNotFoundError):
        return NotFound(
            f"The Hub has no {what} that can be seen with this access.",
            next_step="Check the spelling. publish_to_hub makes it with operation create_repo; if it is there and"
            " private, HF_TOKEN must be of an account that sees it.",
        )
    if status == 401:
        return Blocked(
            f"The Hub does not accept the token{because}",
            service=SERVICE,
            http_status=status,
            next_step="Set HF_TOKEN to a valid token (huggingface.co/settings/tokens), or run: hf auth login",
        )
    if status == 403:
        return Blocked(
            f"The token may not change {what} ({status}){because}",
            service=SERVICE,
            http_status=status,
            next_step="Set HF_TOKEN to a token with write access to it (huggingface.co/settings/tokens), or offer"
            " the change as a pull request: create_pr.",
        )
    if status in (409, 412):
        return Conflict(
            f"{what} is in a state that forbids this ({status}){because}",
            next_step="It may have been changed meanwhile: look with browse_hub, then call again.",
        )
    if status in (400, 413, 422):
        return BadInput(f"The Hub does not take this for {what} ({status}){because}", next_step="Correct it.")
    return None


def _one_line(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 300 else f"{line[:300]}... (cut)"


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
