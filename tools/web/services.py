"""The outside services as data: where each lives, how often it may be asked, which token is its own."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from mlintern.tools.errors import BadInput

DAY = 86_400.0
SEARCH_AGE = DAY
"""How long an answer to a search is served from the cache, seconds."""
IDENTITY_AGE = 30 * DAY
"""The same for what an id stands for."""
FOREVER = math.inf
"""The same for what never changes: one version of a paper, one commit of a file."""

MEBIBYTE = 1 << 20
Origin = tuple[str, str, int]
"""Scheme, hostname, port: what a token and a permission are bound to."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One outside service.

    Attributes:
        name: as callers and errors name it.
        title: as people name it.
        base_variable: the environment variable that moves it; empty for a service without a home (any public URL).
        base_url: where it lives otherwise.
        gate: services with the same gate share one rate.
        interval: least seconds between two requests, kept over all processes.
        interval_with_token: the same where a token is set.
        one_at_a_time: no second connection while one is open, over all processes.
        token_variable: the environment variable that holds its token.
        token_header: header and format of the token, such as ``("Authorization", "Bearer {}")``.
        token_parameter: query parameter of the token, for services that take it there.
        first_wait: seconds before the second try after a 429 that names no time; doubles.
        cooldown: seconds for which the breaker stays open the first time; doubles.
        cache_age: seconds for which an answer is fresh unless the caller says otherwise.
        missing_age: the same for "there is no such thing" (404).
        timeout: seconds that one exchange may take.
        max_bytes: the largest body that is read.
        limit_advice: what a person can do about being limited.
        forbidden_is_limit: a 403 means "too often", as in OpenAlex's table of errors.
        breaker_by_call: a refusal closes the call that was refused, not the whole service: its allowances are
            counted apart (Hugging Face: API calls, pages, files; GitHub: code search, the rest).
        later_code: where its errors carry a code in ``X-Error-Code``, the start of the one that says "ask again"; a
            500 with another code, or none, stays as it is.
        takes_contact: its terms ask for a contact in the User-Agent; the address in ``MLINTERN_CONTACT`` is sent.
    """

    name: str
    title: str
    base_variable: str = ""
    base_url: str = ""
    gate: str = ""
    interval: float = 0.0
    interval_with_token: float | None = None
    one_at_a_time: bool = False
    token_variable: str = ""
    token_header: tuple[str, str] | None = None
    token_parameter: str = ""
    first_wait: float = 1.0
    cooldown: float = 120.0
    cache_age: float = SEARCH_AGE
    missing_age: float = 0.0
    timeout: float = 20.0
    max_bytes: int = 16 * MEBIBYTE
    limit_advice: str = ""
    forbidden_is_limit: bool = False
    breaker_by_call: bool = False
    later_code: str = ""
    takes_contact: bool = False

    @property
    def opening(self) -> str:
        """The title as a sentence begins with it: "The arXiv API", but "arXiv"."""
        return f"The {self.title[4:]}" if self.title.startswith("the ") else self.title


_ARXIV_TERMS = {
    "gate": "arxiv",
    "interval": 3.0,
    "one_at_a_time": True,
    "first_wait": 60.0,
    "cooldown": 60.0,
    "takes_contact": True,
}
"""arXiv's terms of use: one request every three seconds and one connection, summed over all of its interfaces.

Programs read ``export.arxiv.org``, the site that arXiv sets aside for them, pages included.
"""

SERVICES: tuple[Service, ...] = (
    Service(
        name="arxiv_api",
        title="the arXiv API",
        base_variable="MLINTERN_ARXIV_API_URL",
        base_url="https://export.arxiv.org/api/query",
        **_ARXIV_TERMS,  # type: ignore[arg-type]
    ),
    Service(
        name="arxiv",
        title="arXiv",
        base_variable="MLINTERN_ARXIV_URL",
        base_url="https://export.arxiv.org",
        missing_age=DAY,
        timeout=40.0,
        max_bytes=64 * MEBIBYTE,
        **_ARXIV_TERMS,  # type: ignore[arg-type]
    ),
    Service(
        name="ar5iv",
        title="ar5iv",
        base_variable="MLINTERN_AR5IV_URL",
        base_url="https://ar5iv.labs.arxiv.org",
        interval=1.0,
        missing_age=DAY,
        timeout=30.0,
        max_bytes=64 * MEBIBYTE,
    ),
    Service(
        name="semantic_scholar",
        title="Semantic Scholar",
        base_variable="MLINTERN_S2_URL",
        base_url="https://api.semanticscholar.org",
        interval=3.0,
        interval_with_token=1.1,
        token_variable="S2_API_KEY",
        token_header=("x-api-key", "{}"),
        limit_advice="Without a key all users share one pool; set S2_API_KEY to get a rate of your own.",
    ),
    Service(
        name="openalex",
        title="OpenAlex",
        base_variable="MLINTERN_OPENALEX_URL",
        base_url="https://api.openalex.org",
        interval=0.1,
        token_variable="OPENALEX_API_KEY",
        token_parameter="api_key",
        forbidden_is_limit=True,
        limit_advice="Without a key OpenAlex gives about 10 US cents a day, some 100 searches; the free "
        "OPENALEX_API_KEY gives a dollar a day.",
    ),
    Service(
        name="huggingface",
        title="Hugging Face",
        base_variable="HF_ENDPOINT",
        base_url="https://huggingface.co",
        token_variable="HF_TOKEN",
        token_header=("Authorization", "Bearer {}"),
        breaker_by_call=True,
        limit_advice="Set HF_TOKEN to get a larger allowance.",
    ),
    Service(
        name="datasets_server",
        title="the Hugging Face dataset viewer",
        base_variable="MLINTERN_DATASETS_SERVER_URL",
        base_url="https://datasets-server.huggingface.co",
        token_variable="HF_TOKEN",
        token_header=("Authorization", "Bearer {}"),
        later_code="ResponseNotReady",
    ),
    Service(
        name="github",
        title="GitHub",
        base_variable="MLINTERN_GITHUB_URL",
        base_url="https://api.github.com",
        token_variable="GITHUB_TOKEN",
        token_header=("Authorization", "Bearer {}"),
        breaker_by_call=True,
        limit_advice="GitHub allows 60 requests an hour without a token, 5,000 with GITHUB_TOKEN, and 10 code "
        "searches a minute, which need the token.",
    ),
    Service(name="web", title="the web"),
)


@dataclass(frozen=True)
class Endpoint:
    """A `Service` where this environment puts it.

    ``chosen`` says that a person set the base URL: only then may it be inside a private network.
    """

    service: Service
    base: str
    origin: Origin | None
    chosen: bool
    token: str

    @property
    def interval(self) -> float:
        with_token = self.service.interval_with_token
        return with_token if self.token and with_token is not None else self.service.interval

    def url(self, path: str) -> str:
        """``path`` under the base URL; an absolute http(s) URL stays as it is.

        Raises:
            BadInput: a relative path for a service without a home, or a scheme other than http(s).
        """
        if urlsplit(path).scheme in ("http", "https"):
            return path
        if not self.base or "://" in path:
            raise BadInput(f"{path!r} is not an http(s) address.", next_step="Give a full https:// URL.")
        return f"{self.base}/{path.lstrip('/')}" if path else self.base

    def call_of(self, url: str) -> str:
        """The call whose allowance ``url`` is counted against: ``api.papers``, ``docs``; empty for one allowance."""
        if not self.service.breaker_by_call or not self.is_home(url):
            return ""
        parts = [part for part in urlsplit(url).path.removeprefix(urlsplit(self.base).path).split("/") if part]
        named = parts[: 2 if parts[:1] in (["api"], ["search"]) else 1]
        return ".".join(re.sub(r"[^A-Za-z0-9_-]", "", part) for part in named)

    def is_home(self, url: str) -> bool:
        """Whether ``url`` has the very origin of the base URL, compared as parsed, never as text."""
        return self.origin is not None and origin_of(url) == self.origin


def locate(service: Service, environ: Mapping[str, str]) -> Endpoint:
    """Where ``service`` lives in this environment, and its token.

    Raises:
        BadInput: the environment variable holds something that is no http(s) URL.
    """
    moved = environ.get(service.base_variable, "").strip() if service.base_variable else ""
    base = _complete(service, (moved or service.base_url).rstrip("/"))
    token = environ.get(service.token_variable, "").strip() if service.token_variable else ""
    if not base:
        return Endpoint(service, "", None, False, "")
    try:
        origin = origin_of(base)
    except ValueError:
        origin = ("", "", 0)
    if origin[0] not in ("http", "https") or not origin[1]:
        raise BadInput(
            f"{service.base_variable}={moved!r} is not an http(s) URL.",
            next_step=f"Unset it to use {service.base_url}.",
        )
    return Endpoint(service, base, origin, bool(moved), token)


def origin_of(url: str) -> Origin:
    """Scheme, lower-case hostname and port of ``url``; raises ValueError for a port that is none."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, (parts.hostname or "").rstrip("."), port


def redirect_target(url: str, location: str) -> str:
    """Where a ``Location`` header on the answer of ``url`` leads; raises ValueError if that is no address."""
    target = urljoin(url, location)
    origin_of(target)
    return target


def _complete(service: Service, base: str) -> str:
    """``base`` with what people leave out or add: arXiv's API is one address, Semantic Scholar's is a host."""
    if service.name == "arxiv_api" and base and not base.endswith("/query"):
        return f"{base}/query" if base.endswith("/api") else f"{base}/api/query"
    if service.name == "semantic_scholar":
        return base.removesuffix("/graph/v1")
    return base
