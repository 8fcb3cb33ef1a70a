"""Ray's job server by its REST API: questions in bounded time, and failures that say what to do."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from mlintern.tools.errors import BackendError, Blocked, NotFound, Offline

if TYPE_CHECKING:
    import httpx2

REQUEST_SECONDS = 30.0


class RayRest:
    """Args:
    url: base URL of the job server. token: for a proxy in front of it.
    """

    def __init__(self, *, url: str, token: str | None, transport: httpx2.AsyncBaseTransport | None) -> None:
        self.url = url
        self.transport = transport
        self._token = token

    def address(self, path: str) -> str:
        return f"{self.url.rstrip('/')}{path}"

    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token}"} if self._token else {}

    def offline(self, reason: object) -> Offline:
        said = f"{type(reason).__name__} {reason}".rstrip() if isinstance(reason, Exception) else str(reason)
        return Offline(
            f"Ray at {self.url} does not answer: {said}",
            service="ray",
            next_step="Check that the cluster is up and that url in [ray] of config.toml is its dashboard.",
        )

    async def ask(self, method: str, path: str, *, body: Any = None, content: bytes | None = None) -> Any:
        """`answer`, as JSON; {} for packages, whose answers are none."""
        answer = await self.answer(method, path, body=body, content=content)
        return {} if path.startswith("/api/packages/") else json_of(answer)

    async def answer(
        self, method: str, path: str, *, body: Any = None, content: bytes | None = None
    ) -> httpx2.Response:
        """A good answer.

        Raises:
            NotFound: Ray says that what ``path`` names does not exist. Blocked: 401 or 403.
            BackendError: another refusal.
            Offline: no answer, or a proxy's that nobody answers: what was asked may have been done.
        """
        import httpx2

        try:
            async with httpx2.AsyncClient(transport=self.transport, timeout=REQUEST_SECONDS) as client:
                answer = await client.request(
                    method, self.address(path), headers=self.headers(), json=body, content=content
                )
        except httpx2.TransportError as error:
            raise self.offline(error) from error
        if answer.status_code == 404 and "does not exist" in answer.text:
            raise NotFound(f"Ray has no {path}.")
        if answer.status_code in (401, 403):
            raise Blocked("Ray refuses us; set token in [ray].", service="ray", http_status=answer.status_code)
        if answer.status_code in (502, 503, 504):
            raise self.offline(f"status {answer.status_code}")
        if answer.is_error:
            last = answer.text.strip().splitlines()[-1:] or [""]
            starting = "No available agent" in last[0]
            raise BackendError(
                f"Ray refused {method} {path} ({answer.status_code}): {last[0][:300]}",
                next_step="The cluster is still starting: submit again in some seconds." if starting else "",
            )
        return answer


def json_of(answer: httpx2.Response, *, holding: str | None = None) -> Any:
    """The answer's JSON; with ``holding`` an object that has this key."""
    try:
        value = json.loads(answer.content or b"{}")
    except ValueError:
        value = None
    if value is None or (holding is not None and not (isinstance(value, dict) and holding in value)):
        raise BackendError(
            f"{answer.request.url} answers, but not as Ray's job server does.",
            next_step="Set url in [ray] of config.toml to the dashboard's address.",
        )
    return value


def date_of(answer: httpx2.Response) -> float | None:
    """The moment of the answer by the cluster's clock, Unix seconds."""
    text = answer.headers.get("date")
    return parsedate_to_datetime(text).timestamp() if text else None
