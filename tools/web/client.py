"""`Web`: one request, asked politely, answered or refused by name."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from mlintern.common.clock import Clock
from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.web import private_networks, refusals
from mlintern.tools.web.cache import Cache, Entry
from mlintern.tools.web.exchange import Answer, Broken, Request, Wire
from mlintern.tools.web.rate_limit import Breaker
from mlintern.tools.web.services import SERVICES, Endpoint, Service, locate
from mlintern.tools.workspace import Workspace

if TYPE_CHECKING:
    import httpx2

ATTEMPTS = 3
LONGEST_WAIT = 10.0
"""Seconds; a service that asks for more is reported as rate-limited instead of waited for."""
_ACCEPT = {"json": "application/json", "xml": "application/atom+xml, application/xml", "html": "text/html"}

Parameters = Mapping[str, "str | int | float | bool | Sequence[str] | None"]


class Web:
    """The async HTTP client of all networked tools.

    Args:
        workspace: holds the cache and what must survive a restart.
        clock: every wait goes through it.
        transport: replaces the network, for tests; names are then not resolved here.
        environ: where base URLs and tokens are read; the process's own by default.
        rng: source of the jitter of waits.
        resolve: name resolution, for tests.
    """

    def __init__(
        self,
        workspace: Workspace,
        clock: Clock,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        environ: Mapping[str, str] | None = None,
        rng: random.Random | None = None,
        resolve: private_networks.Resolve = private_networks.resolve_by_system,
        services: Sequence[Service] = SERVICES,
    ) -> None:
        self._workspace = workspace
        self._clock = clock
        self._environ = os.environ if environ is None else environ
        self._rng = rng or random.Random()
        self._services = {service.name: service for service in services}
        self._cache = Cache(workspace.cache / "web")
        self._breakers: dict[str, Breaker] = {}
        self._wire = Wire(workspace, clock, transport=transport, environ=self._environ, resolve=resolve)

    @property
    def requests_sent(self) -> int:
        """Requests that went out since the start, retries and redirects included, cached answers not."""
        return self._wire.requests_sent

    async def get(
        self,
        service: str,
        path: str = "",
        *,
        params: Parameters | None = None,
        headers: Mapping[str, str] | None = None,
        expect: str | None = None,
        accept_statuses: Sequence[int] = (),
        max_bytes: int | None = None,
        timeout: float | None = None,
        cache: float | None = None,
    ) -> Answer:
        """GET ``path`` (relative to the service's base URL, or a whole URL) with ``params``.

        Args:
            service: a name of `SERVICES`.
            params: query parameters; None values are left out, sequences are repeated.
            expect: "json" or "xml": a web page instead of it, or only a part, is an error; "html"; None: anything.
            accept_statuses: error statuses to return as an answer (never cached).
            max_bytes: largest body that is read; the service's own limit by default.
            timeout: seconds for one exchange; the service's own by default.
            cache: seconds for which a cached answer will do; the service's own by default, 0 asks anew.

        Raises:
            NotFound: the service does not have it (404, 410).
            RateLimited: it asked to wait, now or earlier; `retry_after_seconds` says how long.
            Blocked: it refuses us, or the address is inside a private network.
            Offline: it cannot be reached.
            ServiceError: any other failure, by `http_status` where it answered.
            BadInput: ``service`` or ``path`` is unknown or malformed.
        """
        endpoint = self.endpoint(service)
        url = _with_parameters(endpoint.url(path), params)
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        request = Request(
            method="GET",
            url=url,
            headers={"accept": _ACCEPT.get(expect or "", "*/*"), **sent},
            expect=expect,
            accepted=frozenset(accept_statuses),
            max_bytes=endpoint.service.max_bytes if max_bytes is None else max_bytes,
            timeout=endpoint.service.timeout if timeout is None else timeout,
        )
        return await self._cached(endpoint, request, endpoint.service.cache_age if cache is None else cache)

    async def post(
        self,
        service: str,
        path: str,
        *,
        params: Parameters | None = None,
        payload: Any,
        timeout: float | None = None,
        cache: float = 0.0,
    ) -> Answer:
        """POST ``payload`` as JSON to a call that only reads (a batch look-up) and answers JSON. Raises as `get`."""
        endpoint = self.endpoint(service)
        url = _with_parameters(endpoint.url(path), params)
        request = Request(
            method="POST",
            url=url,
            headers={"accept": _ACCEPT["json"], "content-type": "application/json"},
            body=json.dumps(payload).encode(),
            expect="json",
            max_bytes=endpoint.service.max_bytes,
            timeout=endpoint.service.timeout if timeout is None else timeout,
        )
        return await self._cached(endpoint, request, cache)

    def endpoint(self, service: str) -> Endpoint:
        """Where ``service`` lives now.

        Raises:
            BadInput: there is no such service, or its base URL is malformed.
        """
        if service not in self._services:
            raise BadInput(f"There is no service {service!r}.", next_step=f"Known: {', '.join(self._services)}.")
        return locate(self._services[service], self._environ)

    async def close(self) -> None:
        """Close all connections."""
        await self._wire.close()

    # One request, through the cache ---------------------------------------------------------------------------------

    async def _cached(self, endpoint: Endpoint, request: Request, age: float) -> Answer:
        name = endpoint.service.name
        key = Cache.key(
            request.method,
            request.url,
            repr(sorted(request.headers.items())),
            endpoint.token,  # what one token may see, another may not
            (request.body or b"").decode(),
        )
        known = await self._cache.read(name, key) if age > 0 else None
        if known is not None:
            old = max(0.0, self._clock.now() - known.stored_at)
            if known.status == 404 and old < min(age, endpoint.service.missing_age):
                when = f"{endpoint.service.opening} did not have it {old / 3600:.0f} h ago."
                raise NotFound(when, http_status=404, next_step="Check the id.")
            if known.status != 404 and old < age:
                return Answer(name, known.url, known.status, known.headers, known.body, True, old)
        try:
            answer = await self._ask(endpoint, request, known)
        except NotFound:
            if endpoint.service.missing_age > 0:
                await self._cache.write(name, key, entry=Entry(request.url, 404, {}, self._clock.now(), b""))
            raise
        if 200 <= answer.status < 300:
            entry = Entry(answer.url, answer.status, answer.headers, self._clock.now(), answer.body)
            await self._cache.write(name, key, entry=entry)
        return answer

    # One request, through the network -------------------------------------------------------------------------------

    async def _ask(self, endpoint: Endpoint, request: Request, known: Entry | None) -> Answer:
        """Send ``request`` until it is answered, at most `ATTEMPTS` times."""
        service = endpoint.service
        breaker = self._breaker(endpoint, request.url)
        validators = known.validators if known is not None and known.status != 404 else {}
        conditional = replace(request, headers={**request.headers, **validators})
        for attempt in range(ATTEMPTS):
            breaker.check()
            last = attempt == ATTEMPTS - 1
            try:
                answer = await self._wire.follow(endpoint, conditional)
            except Broken:
                if last:
                    raise
                await self._pause(2.0**attempt)
                continue
            asked = refusals.retry_after(answer.headers, self._clock.now())
            if refusals.is_limit(service, answer.status, body=answer.body):
                await self._pause(breaker.refused(asked, longest_wait=LONGEST_WAIT, http_status=answer.status))
                continue
            if (
                refusals.is_passing(service, answer.status, headers=answer.headers)
                and not last
                and (asked or 0.0) <= LONGEST_WAIT
            ):
                await self._pause(2.0**attempt if asked is None else asked)
                continue
            breaker.answered()
            if answer.status == 304 and known is not None:
                return replace(answer, url=known.url, status=known.status, headers=known.headers, body=known.body)
            if answer.status not in request.accepted:
                refusals.raise_for_status(service, answer.status, body=answer.body, secret=endpoint.token)
                refusals.check_kind(service, answer.body, expect=request.expect, status=answer.status)
            return answer
        raise breaker.refusal(service.cooldown, http_status=429)

    # What is kept between requests ----------------------------------------------------------------------------------

    def _breaker(self, endpoint: Endpoint, url: str) -> Breaker:
        service = endpoint.service
        name = ".".join(filter(None, (service.gate or service.name, endpoint.call_of(url))))
        key = f"{service.name} {name}"
        if key not in self._breakers:
            path = self._workspace.folder("web") / f"{name}.blocked.json"
            self._breakers[key] = Breaker(path, self._clock, service=service)
        return self._breakers[key]

    async def _pause(self, seconds: float) -> None:
        """Wait, up to a quarter longer: callers who failed together do not come back together."""
        await self._clock.sleep(seconds * (1.0 + 0.25 * self._rng.random()))


def _with_parameters(url: str, params: Parameters | None) -> str:
    pairs: list[tuple[str, str]] = []
    for name, value in (params or {}).items():
        if value is None:
            continue
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        pairs += [(name, str(one).lower() if isinstance(one, bool) else str(one)) for one in values]
    if not pairs:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(pairs)}"
