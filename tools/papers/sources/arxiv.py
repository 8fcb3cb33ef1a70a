"""arXiv, asked through the `arxiv` package, which builds the queries and reads the feeds.

Its HTTP is ours: an adapter mounted on its `requests` session hands every request to `Web`, so that the rate, the
time-outs, the cache and honest errors hold for it too. By itself the package waits for ever for a silent server, asks
again three times after a malformed id, does not hear Retry-After, reads a web page as "no results" and a cut feed as
a complete one.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

from mlintern.tools.errors import NotFound, ServiceError
from mlintern.tools.papers.ids import parse_id, try_parse_id
from mlintern.tools.papers.paper import Paper
from mlintern.tools.papers.query import Query, for_arxiv
from mlintern.tools.papers.sources import Found
from mlintern.tools.web import IDENTITY_AGE, SEARCH_AGE, Answer, Web

if TYPE_CHECKING:
    import arxiv
    import requests

_OPEN_SEARCH = "{http://a9.com/-/spec/opensearch/1.1/}"
_ATOM = "{http://www.w3.org/2005/Atom}"
_FARTHEST = 2000
"""arXiv's documents disagree on how deep a search may go; nobody reads beyond this."""
_SERVICE = "arxiv_api"


class ArxivSource:
    """Search and look-up by id in arXiv's API."""

    name = "arxiv"

    def __init__(self, web: Web) -> None:
        self._web = web

    async def search(self, query: Query, *, position: str, limit: int) -> Found:
        import arxiv

        start = int(position or 0)
        wanted = min(limit, _FARTHEST - start)
        expression = for_arxiv(query)
        if wanted <= 0 or not expression:
            return Found((), unapplied=query.filters)
        by = arxiv.SortCriterion.SubmittedDate if query.sort == "date" else arxiv.SortCriterion.Relevance
        search = arxiv.Search(query=expression, max_results=start + wanted, sort_by=by)
        papers, feed = await self._results(search, start=start, size=wanted, age=SEARCH_AGE)
        end = start + len(papers)
        more = papers and end < min(feed.total, _FARTHEST)
        unapplied = query.filters & {"min_citations"}
        return Found(tuple(papers), feed.total, str(end) if more else None, unapplied, feed.from_cache)

    async def look_up(self, arxiv_ids: list[str]) -> list[Paper]:
        """The papers with ``arxiv_ids`` (bare or with a version), at most 100, those that exist.

        Raises:
            NotFound: arXiv says that an id is malformed.
            ServiceError: it could not answer.
        """
        import arxiv

        size = max(1, len(arxiv_ids))
        search = arxiv.Search(id_list=arxiv_ids, max_results=size)
        papers, _ = await self._results(search, start=0, size=size, age=IDENTITY_AGE)
        return papers

    async def _results(self, search: arxiv.Search, *, start: int, size: int, age: float) -> tuple[list[Paper], _Feed]:
        """One page, asked once more if it comes back empty: arXiv is known for untrue empty first pages."""
        import anyio

        papers, feed = await anyio.to_thread.run_sync(self._page, search, start, size, age)
        if not papers and (feed.total > start or (search.query and not feed.from_cache)):
            papers, feed = await anyio.to_thread.run_sync(self._page, search, start, size, 0.0)
        if not papers and feed.total > start:
            raise ServiceError(
                f"arXiv counts {feed.total} results but sends an empty page.",
                service=_SERVICE,
                http_status=200,
                next_step="Try again in a minute.",
            )
        return papers, feed

    def _page(self, search: arxiv.Search, start: int, size: int, age: float) -> tuple[list[Paper], _Feed]:
        """Runs on a worker thread: the package is synchronous."""
        import arxiv

        feed = _Feed(self._web, age)
        client = arxiv.Client(page_size=size, delay_seconds=0.0, num_retries=0)
        address = self._web.endpoint(_SERVICE).base
        client.query_url_format = address + "?{}"
        client._session.mount(f"{urlsplit(address).scheme}://", _adapter(feed))
        papers: list[Paper] = []
        with contextlib.suppress(_EndOfPage):
            papers.extend(_paper(result) for result in client.results(search, offset=start))
        return papers, feed


class _EndOfPage(Exception):
    """The package goes on to the next page by itself; we read one at a time."""


class _Feed:
    """Fetches through `Web` for the package and remembers what the package does not tell."""

    def __init__(self, web: Web, age: float) -> None:
        self._web = web
        self._age = age
        self.total = 0
        self.from_cache = False
        self._asked = False

    def fetch(self, url: str) -> Answer:
        from functools import partial

        import anyio.from_thread

        if self._asked:
            raise _EndOfPage
        self._asked = True
        ask = partial(self._web.get, _SERVICE, url, expect="xml", cache=self._age, accept_statuses=(400,))
        answer: Answer = anyio.from_thread.run(ask)
        self._read(answer)
        return answer

    def _read(self, answer: Answer) -> None:
        try:
            root = ElementTree.fromstring(answer.body)
        except ElementTree.ParseError:
            root = ElementTree.Element("nothing")
        entries = root.findall(f"{_ATOM}entry")
        first = entries[0].findtext(f"{_ATOM}id", "") if entries else ""
        if "/api/errors" in first:
            reason = " ".join(entries[0].findtext(f"{_ATOM}summary", "").split())
            if "id format" in reason:
                raise NotFound(f"arXiv does not know this id: {reason}.", next_step="Check the id.")
            raise _refused(f"arXiv refuses the request: {reason}.", answer.status)
        if root.tag != f"{_ATOM}feed":
            raise _refused(f"arXiv answered {answer.status} with something that is no feed.", answer.status)
        self.total = int(root.findtext(f"{_OPEN_SEARCH}totalResults", "0").strip() or 0)
        self.from_cache = answer.from_cache


def _refused(message: str, status: int) -> ServiceError:
    return ServiceError(message, service=_SERVICE, http_status=status, next_step="Rephrase the query.")


def _adapter(feed: _Feed) -> requests.adapters.BaseAdapter:
    """A `requests` transport that asks through ``feed`` and raises our errors, which the package lets pass."""
    import requests

    class WebAdapter(requests.adapters.BaseAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
            answer = feed.fetch(request.url or "")
            response = requests.Response()
            response.status_code = answer.status
            response._content = answer.body
            response.url = answer.url
            response.request = request
            return response

        def close(self) -> None:
            """Nothing is held."""

    return WebAdapter()


def _paper(result: arxiv.Result) -> Paper:
    """A `Paper` from the package's result."""
    name = parse_id(result.entry_id)
    keys = [name.key]
    published_as = try_parse_id(result.doi) if result.doi else None
    if published_as is not None and published_as.kind == "doi":
        keys.append(published_as.key)
    return Paper(
        keys=tuple(keys),
        title=" ".join(result.title.split()),
        authors=tuple(author.name for author in result.authors),
        year=result.published.year,
        published=result.published.date().isoformat(),
        abstract=" ".join(result.summary.split()),
        venue=result.journal_ref or "",
        categories=tuple(result.categories),
        url=name.url if name.version is None else f"https://arxiv.org/abs/{name.value}",
        found_in=("arxiv",),
    )
