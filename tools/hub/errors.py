"""Errors of the Hub and of `huggingface_hub`, as ours: what a status means when reading, writing or running a job."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from mlintern.common.text import cut, one_line
from mlintern.tools.errors import (
    BackendError,
    BadInput,
    Blocked,
    Conflict,
    MlinternError,
    NotFound,
    Offline,
    RateLimited,
    ServiceError,
)

SERVICE = "huggingface"
Purpose = Literal["read", "write", "job"]
_AGAIN = {
    "read": "Try again later.",
    "write": "Call again with the same arguments: if it was done, that is found.",
    "job": "Ask again in a minute; nothing is submitted twice.",
}


def no_token(doing: str) -> Blocked:
    return Blocked(
        f"There is no token to {doing} with.",
        service=SERVICE,
        next_step="Set HF_TOKEN for the server, or run: hf auth login",
    )


@contextmanager
def hub_errors(what: str, *, purpose: Purpose = "read") -> Iterator[None]:
    """Errors of huggingface_hub inside the block, as ours.

    Args:
        what: the thing that is asked about; for a job what is done ("start the job").
        purpose: reading, changing something, or asking Hugging Face Jobs.

    Raises:
        Offline: no answer came, or none that the Hub gives; what was asked for may have been done.
        MlinternError: any other says that it was not.
    """
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except MlinternError:
        raise
    except errors.LocalTokenNotFoundError as error:
        raise no_token(what if purpose == "job" else f"read {what}") from error
    except errors.OfflineModeIsEnabled as error:
        raise Offline(
            "HF_HUB_OFFLINE is set, so the Hub is not asked.",
            service=SERVICE,
            next_step="Unset it, or give a local path.",
        ) from error
    except errors.HFValidationError as error:
        raise BadInput(f"{what} is not a Hub id: {error}.", next_step="Give `name` or `org/name`.") from error
    except errors.HfHubHTTPError as error:
        refused = {"write": _refused_write, "job": _refused_job}.get(purpose)
        raise (refused(what, error) if refused else None) or _answered(what, error) from error
    except errors.LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, errors.HfHubHTTPError):  # it was asked, and refused
            raise _answered(what, error.__cause__) from error
        raise Offline(
            f"{what} is not in the Hub cache of this machine, and the Hub cannot be reached: {_said(error)}",
            service=SERVICE,
            next_step="Check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give a local path.",
        ) from error
    except errors.EntryNotFoundError as error:
        raise NotFound(f"{what} is not there: {_said(error)}", next_step="browse_hub lists the files.") from error
    except (httpx2.TimeoutException, TimeoutError) as error:
        raise Offline(
            f"The Hub did not answer about {what} in time.", service=SERVICE, next_step=_AGAIN[purpose]
        ) from error
    except (httpx2.DecodingError, httpx2.TooManyRedirects) as error:
        raise Offline(
            f"Something answered about {what}, but not as Hugging Face does: {_said(error)}.",
            service=SERVICE,
            next_step="Check HF_ENDPOINT and the proxy.",
        ) from error
    except httpx2.TransportError as error:
        if _closed_by_us(error):
            raise Offline(
                f"The Hub did not answer about {what} before the connection was closed.",
                service=SERVICE,
                next_step=_AGAIN[purpose],
            ) from error
        raise Offline(
            f"The Hub cannot be reached: {_said(error)}.",
            service=SERVICE,
            next_step="Check the network and HF_ENDPOINT, or give a local path.",
        ) from error


def _closed_by_us(error: BaseException) -> bool:
    """Whether the connection was closed here: `huggingface_hub` closes that of all requests when one fails."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno == errno.EBADF:
            return True
        cause = cause.__cause__ or cause.__context__
    return False


@contextmanager
def shape_errors(what: str) -> Iterator[None]:
    """What `huggingface_hub` raises on an answer of another shape (a proxy's page, other JSON), as `Offline`."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Offline(
            f"Something answered about {what}, but not as Hugging Face does.",
            service=SERVICE,
            next_step="Check HF_ENDPOINT and the proxy.",
        ) from error


def _answered(what: str, error: Any) -> MlinternError:
    """An error answer of the Hub; the header X-Error-Code decides before the status does."""
    from huggingface_hub import errors
    from huggingface_hub.utils._http import parse_ratelimit_headers

    response = error.response
    status = response.status_code if response is not None else None
    said = _said(error.server_message or "")
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
    said = _said(error.server_message or "")
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


def _refused_job(doing: str, error: Any) -> MlinternError | None:
    """An error answer of Hugging Face Jobs; None where it means what it means elsewhere."""
    status = error.response.status_code if error.response is not None else None
    said = _said(error.server_message or error)
    about: dict[str, Any] = {"service": SERVICE, "http_status": status}
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
            return None
        case _ if status is None or status >= 500:
            return Offline(f"Hugging Face failed ({status}) while I tried to {doing}: {said}", **about)
    return BackendError(f"Hugging Face refused to {doing} ({status}): {said}")


def _said(text: object) -> str:
    return cut(one_line(str(text)), 300)
