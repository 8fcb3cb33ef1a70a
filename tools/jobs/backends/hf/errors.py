"""Questions to Hugging Face Jobs: off the event loop, in bounded time, with failures that say what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from mlintern.tools.errors import BackendError, Blocked, MlinternError, Offline, RateLimited

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Result = TypeVar("Result")


async def ask(question: Callable[[HfApi], Result], api: HfApi, *, doing: str, seconds: float) -> Result:
    """The answer to ``question``, which runs on a worker thread for ``seconds`` at most.

    Raises:
        Offline: no answer came; what was asked may have been done.
        RateLimited, Blocked, BackendError: it surely was not.
    """
    import anyio
    import anyio.to_thread
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        with anyio.fail_after(seconds):
            return await anyio.to_thread.run_sync(question, api, abandon_on_cancel=True)
    except LocalTokenNotFoundError as error:
        raise no_token(doing) from error
    except OfflineModeIsEnabled as error:
        raise Blocked(
            "HF_HUB_OFFLINE is set, so Hugging Face is not asked.", service="huggingface", next_step="Unset it."
        ) from error
    except HfHubHTTPError as error:
        raise named(error, doing) from error
    except (httpx2.TransportError, TimeoutError) as error:
        raise Offline(
            f"Hugging Face did not answer while I tried to {doing}: {type(error).__name__}.",
            service="huggingface",
            next_step="Ask again in a minute; nothing is submitted twice.",
        ) from error
    except (ValueError, KeyError, TypeError) as error:  # a proxy's page, or JSON of another shape than the client's
        raise Offline(
            f"Something answered while I tried to {doing}, but not as Hugging Face does: {type(error).__name__}.",
            service="huggingface",
            next_step="Check HF_ENDPOINT and the proxy; nothing is submitted twice.",
        ) from error


def no_token(doing: str) -> Blocked:
    return Blocked(
        f"There is no token to {doing} with.",
        service="huggingface",
        next_step="Set HF_TOKEN for the server, or run: hf auth login",
    )


def named(error: Any, doing: str) -> MlinternError:
    """An HTTP error of the service (`HfHubHTTPError`) as ours."""
    status = error.response.status_code
    said = str(error.server_message or error).strip().splitlines()[0][:300]
    about: dict[str, Any] = {"service": "huggingface", "http_status": status}
    match status:
        case 401:
            return Blocked(f"The token is not accepted: {said}", next_step="Set a valid HF_TOKEN.", **about)
        case 402:
            return Blocked(
                f"Nobody pays for this job: {said}",
                next_step="Add credit at huggingface.co/settings/billing, or set another namespace in [hf_jobs].",
                **about,
            )
        case 403:
            return Blocked(
                f"The token may not {doing}: {said}",
                next_step="It needs the right job.write for this namespace (huggingface.co/settings/tokens).",
                **about,
            )
        case 429:
            from huggingface_hub.utils._http import parse_ratelimit_headers

            limits = parse_ratelimit_headers(error.response.headers)
            wait = float(limits.reset_in_seconds) if limits else None
            return RateLimited(f"Hugging Face asks to wait: {said}", retry_after_seconds=wait, **about)
        case _ if status >= 500:
            return Offline(f"Hugging Face failed ({status}) while I tried to {doing}: {said}", **about)
    return BackendError(f"Hugging Face refused to {doing} ({status}): {said}")
