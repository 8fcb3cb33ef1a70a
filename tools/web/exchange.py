"""One exchange with the outside: paced, checked hop by hop, cut off at a size and at a time."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlintern.common.clock import Clock
from mlintern.tools.errors import Offline, ServiceError
from mlintern.tools.web import private_networks
from mlintern.tools.web.rate_limit import Gate
from mlintern.tools.web.services import Endpoint, redirect_target
from mlintern.tools.workspace import Workspace

if TYPE_CHECKING:
    import httpx2

MOST_HOPS = 5
CONNECT_SECONDS = 10.0
_KEPT_ACROSS_HOSTS = ("accept", "range")
"""Headers of the caller that follow a redirect to another host."""


@dataclass(frozen=True)
class Answer:
    """A successful answer.

    Attributes:
        url: where it came from, after redirects, without tokens.
        status: HTTP status, 2xx (or one that the caller said it accepts).
        headers: lower-case names; from the cache, only what `cache.KEPT_HEADERS` names.
        body: decoded bytes, whole.
        from_cache: no request was sent for it.
        age_seconds: how long ago the service said so.
    """

    service: str
    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    from_cache: bool = False
    age_seconds: float = 0.0

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ServiceError: it is something else, or was cut.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise ServiceError(
                f"{self.service} answered with something that is not JSON, or only a part of it.",
                service=self.service,
                http_status=self.status,
                next_step="Try again later.",
            ) from error


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked. ``timeout`` in seconds bounds one exchange; ``accepted`` are error statuses that are answers."""

    method: str
    url: str
    headers: Mapping[str, str]
    max_bytes: int
    timeout: float
    body: bytes | None = None
    expect: str | None = None
    accepted: frozenset[int] = frozenset()


_counters: ContextVar[tuple[CallCounter, ...]] = ContextVar("counters", default=())


class CallCounter:
    """Counts in ``sent`` the requests that this task and the tasks it starts send while the block lasts.

    Retries and redirects count, answers from the cache do not. With ``limit`` the request after that many is not
    sent: `Spent` is raised in its place.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.sent = 0
        self.limit = limit

    def __enter__(self) -> CallCounter:
        self._token = _counters.set((*_counters.get(), self))
        return self

    def __exit__(self, *exception: object) -> None:
        _counters.reset(self._token)


class Spent(ServiceError):
    """The requests that a caller allowed itself are used up; says nothing about the service."""


class Broken(ServiceError):
    """The connection broke after it was made: worth another try."""


class Wire:
    """Sends requests and follows redirects; knows nothing of caches and retries."""

    def __init__(
        self,
        workspace: Workspace,
        clock: Clock,
        *,
        transport: httpx2.AsyncBaseTransport | None,
        environ: Mapping[str, str],
        resolve: private_networks.Resolve,
    ) -> None:
        self._workspace = workspace
        self._clock = clock
        self._transport = transport
        self._environ = environ
        self._resolve = resolve
        self._gates: dict[Path, Gate] = {}
        self._clients: dict[str, httpx2.AsyncClient] = {}
        self._ssl: Any = None
        self.requests_sent = 0

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    async def follow(self, endpoint: Endpoint, request: Request) -> Answer:
        """One exchange and the redirects after it, each hop checked, each at the service's rate."""
        url, headers = request.url, request.headers
        for _ in range(MOST_HOPS + 1):
            private_networks.check_url(url, endpoint)
            async with self._gate(endpoint).turn(endpoint.interval):
                answer = await self._exchange(endpoint, replace(request, url=url, headers=headers))
            location = answer.headers.get("location")
            if answer.status not in (301, 302, 303, 307, 308) or not location:
                return answer
            if request.method != "GET":
                break
            target = self._redirected(endpoint, url, location)
            if urlsplit(target).netloc != urlsplit(url).netloc:
                headers = {name: value for name, value in headers.items() if name in _KEPT_ACROSS_HOSTS}
            url = target
        raise ServiceError(
            f"{endpoint.service.opening} redirects {request.url} without end.",
            service=endpoint.service.name,
            next_step=f"Check {endpoint.service.base_variable or 'the address'}.",
        )

    @staticmethod
    def _redirected(endpoint: Endpoint, url: str, location: str) -> str:
        try:
            return redirect_target(url, location)
        except ValueError as error:
            raise ServiceError(
                f"{endpoint.service.opening} redirects to {location!r:.200}, which is no address: {error}.",
                service=endpoint.service.name,
                next_step=f"Check {endpoint.service.base_variable or 'the address'}.",
            ) from None

    async def _exchange(self, endpoint: Endpoint, request: Request) -> Answer:
        import anyio
        import httpx2

        service = endpoint.service
        for counter in _counters.get():
            if counter.limit is not None and counter.sent >= counter.limit:
                raise Spent("The requests of this page are used up.", service=service.name, next_step="Go on later.")
        self.requests_sent += 1
        for counter in _counters.get():
            counter.sent += 1
        client = self._client(endpoint)  # the first one loads its libraries, which is not the service's time
        with anyio.move_on_after(request.timeout):
            try:
                return await self._read(client, endpoint, request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                raise Offline(
                    f"{service.opening} cannot be reached: {error or 'no connection in time'}.",
                    service=service.name,
                    next_step="Check the network connection and proxy, or go on with what is cached or local.",
                ) from error
            except httpx2.TimeoutException:
                pass  # the same as running out of the whole time
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise Broken(
                    f"The connection to {service.title} broke: {error or type(error).__name__}.",
                    service=service.name,
                    next_step="Try again later.",
                ) from error
        raise ServiceError(
            f"{service.opening} did not answer within {request.timeout:g} s.",
            service=service.name,
            next_step="Try again later.",
        )

    async def _read(self, client: httpx2.AsyncClient, endpoint: Endpoint, request: Request) -> Answer:
        """Send one request and read its body up to the limit."""
        import httpx2

        url, headers = httpx2.URL(request.url), {**request.headers, "user-agent": self._user_agent(endpoint)}
        if endpoint.token and endpoint.is_home(request.url):
            if endpoint.service.token_header:
                name, form = endpoint.service.token_header
                headers[name] = form.format(endpoint.token)
            if endpoint.service.token_parameter:
                url = url.copy_merge_params({endpoint.service.token_parameter: endpoint.token})
        timeout = httpx2.Timeout(request.timeout, connect=min(CONNECT_SECONDS, request.timeout))
        message = client.build_request(request.method, url, headers=headers, content=request.body, timeout=timeout)
        response = await client.send(message, stream=True)
        try:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > request.max_bytes:
                    raise ServiceError(
                        f"The answer of {endpoint.service.title} is larger than {request.max_bytes:,} bytes.",
                        service=endpoint.service.name,
                        http_status=response.status_code,
                        next_step="Ask for less of it.",
                    )
        finally:
            await response.aclose()
        lowered = {name.lower(): value for name, value in response.headers.items()}
        return Answer(endpoint.service.name, request.url, response.status_code, lowered, bytes(body))

    def _user_agent(self, endpoint: Endpoint) -> str:
        contact = self._environ.get("MLINTERN_CONTACT", "").strip() if endpoint.service.takes_contact else ""
        return user_agent(contact)

    def _client(self, endpoint: Endpoint) -> httpx2.AsyncClient:
        """A client a service: connections, like permissions, are not shared between services."""
        from http.cookiejar import CookieJar, DefaultCookiePolicy

        import httpx2

        name = endpoint.service.name
        if name not in self._clients:
            if self._transport is not None:
                transport, mounts = self._transport, {}
            else:
                self._ssl = self._ssl or httpx2.create_ssl_context()
                transport = private_networks.guarded_transport(endpoint, verify=self._ssl, resolve=self._resolve)
                mounts = _proxies(self._environ, self._ssl)
            no_cookies = CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
            self._clients[name] = httpx2.AsyncClient(
                transport=transport, mounts=mounts, trust_env=False, follow_redirects=False, cookies=no_cookies
            )
        return self._clients[name]

    def _gate(self, endpoint: Endpoint) -> Gate:
        service = endpoint.service
        # A promise to a public service is the user's, whatever the workspace; a stand-in's belongs to the workspace.
        own = self._workspace.folder("web")
        path = (own if endpoint.chosen else _user_folder(self._environ, own)) / f"{service.gate or service.name}.json"
        if path not in self._gates:
            self._gates[path] = Gate(path, self._clock, one_at_a_time=service.one_at_a_time)
        return self._gates[path]


def _user_folder(environ: Mapping[str, str], otherwise: Path) -> Path:
    """The folder that all of this user's workspaces share; ``otherwise`` where the home folder cannot be written."""
    folder = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mlintern" / "gates"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return otherwise
    return folder


def _proxies(environ: Mapping[str, str], verify: Any) -> dict[str, httpx2.AsyncBaseTransport | None]:
    """Proxies of the environment, by httpx2 URL pattern. A proxy resolves names itself, by its own rules."""
    import httpx2

    mounts: dict[str, httpx2.AsyncBaseTransport | None] = {}
    for scheme in ("http", "https"):
        name = f"{scheme}_proxy"
        names = (name, name.upper(), "all_proxy", "ALL_PROXY")
        if address := next(filter(None, map(environ.get, names)), None):
            mounts[f"{scheme}://"] = httpx2.AsyncHTTPTransport(proxy=address, verify=verify, trust_env=False)
    if mounts:
        exempt = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        for host in filter(None, (part.strip().lstrip(".") for part in exempt.split(","))):
            mounts |= {f"all://{host}": None, f"all://*.{host}": None} if host != "*" else dict.fromkeys(mounts)
    return mounts


@functools.cache
def user_agent(contact: str = "") -> str:
    """Name, version and, where given, how to reach the person who runs it (an e-mail address or a URL)."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        name = f"mlintern/{version('mlintern')}"
    except PackageNotFoundError:
        name = "mlintern"
    reached = "".join(
        letter for letter in contact if letter.isascii() and letter.isprintable() and letter not in "()"
    )
    address = f"mailto:{reached}" if "@" in reached and "://" not in reached else reached
    return f"{name} (MCP server for post-training research{f'; +{address}' if address else ''})"
