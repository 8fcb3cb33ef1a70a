"""The one tree of errors that a tool may raise.

    MlinternError
    ├── BadInput            the caller gave something that cannot be used
    ├── NotFound            the named thing does not exist
    ├── Conflict            the thing exists in a state that forbids the action
    ├── MissingDependency   an optional package or program is not installed
    ├── WorkspaceError      the state folder cannot be used (full, not writable, from a newer version)
    ├── OutOfBudget         the action would pass a limit that a person set
    ├── BackendError        a compute backend refused or failed
    └── ServiceError        an outside service could not answer
        ├── RateLimited     it asked to wait
        ├── Blocked         it refuses us (key, region, robot page), waiting does not help
        └── Offline         it cannot be reached

Every error says what happened and what to do next; the server shows both to the model. Anything that is not in
this tree is a bug and shows as one.
"""

from __future__ import annotations


class MlinternError(Exception):
    """Base of all. ``message`` says what is wrong, ``next_step`` what the caller can do about it."""

    def __init__(self, message: str, *, next_step: str = "") -> None:
        self.message = message.rstrip()
        self.next_step = next_step.rstrip()
        super().__init__(self.__str__())

    def __str__(self) -> str:
        stop = "." if self.next_step and self.message[-1:].isalnum() else ""
        return f"{self.message}{stop} {self.next_step}".rstrip()


class BadInput(MlinternError):
    """The caller gave something that cannot be used: a wrong value, an unknown name, an unreadable file."""


class NotFound(MlinternError):
    """The named job, script, file, repository or paper does not exist; ``http_status`` if a service said so."""

    def __init__(self, message: str, *, http_status: int | None = None, next_step: str = "") -> None:
        self.http_status = http_status
        super().__init__(message, next_step=next_step)


class Conflict(MlinternError):
    """The thing exists, but its state forbids the action (a finished job cannot be cancelled)."""


class MissingDependency(MlinternError):
    """An optional package or program is not installed; ``next_step`` holds the command that installs it."""


class WorkspaceError(MlinternError):
    """The state folder cannot be used: disk full, not writable, written by a newer version."""


class OutOfBudget(MlinternError):
    """The action would pass a spending limit that a person set."""


class BackendError(MlinternError):
    """A compute backend refused a request or failed to answer it."""


class ServiceError(MlinternError):
    """An outside service could not answer.

    Attributes:
        service: its name in ``sources`` of a result, such as ``"arxiv"``.
        http_status: the status it answered with, or None if it did not answer.
        retry_after_seconds: seconds from now after which asking again makes sense, if known.
    """

    status = "error"

    def __init__(
        self,
        message: str,
        *,
        service: str,
        http_status: int | None = None,
        retry_after_seconds: float | None = None,
        next_step: str = "",
    ) -> None:
        self.service = service
        self.http_status = http_status
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message, next_step=next_step)


class RateLimited(ServiceError):
    """The service asked to wait."""

    status = "rate_limited"


class Blocked(ServiceError):
    """The service refuses us; waiting does not help."""

    status = "blocked"


class Offline(ServiceError):
    """The service cannot be reached."""

    status = "offline"
