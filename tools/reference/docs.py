"""`search_docs` and `read_doc`: the documentation of the Hugging Face libraries, by their ``.md`` pages."""

from __future__ import annotations

import re
from functools import partial
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from mlintern.common.clock import Clock
from mlintern.common.text import cut, did_you_mean
from mlintern.tools.errors import BadInput, MlinternError, NotFound, ServiceError
from mlintern.tools.reference.doc_results import DocHit, DocPage, DocSearch, DocSection
from mlintern.tools.reference.docs_index import DocsIndex, sections_of
from mlintern.tools.reference.docs_search import DocsHit, product_of, search_hub_docs
from mlintern.tools.service_status import SourceReport, answered, failed, overall
from mlintern.tools.urls import split_url
from mlintern.tools.web import DAY, Web
from mlintern.tools.workspace import Workspace

DEFAULT = "trl"
LIBRARIES = (
    "accelerate", "bitsandbytes", "dataset-viewer", "datasets", "diffusers", "evaluate", "hub", "huggingface_hub",
    "inference-endpoints", "kernels", "lighteval", "optimum", "peft", "safetensors", "smolagents",
    "text-generation-inference", "timm", "tokenizers", "trackio", "transformers", "trl",
)  # fmt: skip
FRESH = 7 * DAY
AT_ONCE = 8
FETCH_SECONDS = 40.0
PAGE = 10_000
PAGES_A_CALL = 60
"""Pages that one search fetches; the Hub gives 100 in five minutes to who is not logged in."""
SNIPPET = 400
_SEARCH = "huggingface docs search"


class Docs:
    """Asks the Hub's documentation search; where that does not answer, fetches and searches a library's pages."""

    def __init__(self, *, workspace: Workspace, clock: Clock, web: Web) -> None:
        self._workspace = workspace
        self._clock = clock
        self._web = web

    async def search(self, query: str, *, library: str | None = None, limit: int = 10) -> DocSearch:
        """Sections about ``query`` in a library's documentation.

        Args:
            query: words; sections with all of them come first.
            library: such as trl (default), transformers, peft, datasets.
            limit: 1 to 50.

        Raises:
            BadInput: empty query, or an unknown library.
            NotFound: the Hub has no documentation of that name.
        """
        name = _library(library or DEFAULT)
        if not re.search(r"\w", query):
            raise BadInput("The query has no word.", next_step="Give words such as 'packing' or 'reward function'.")
        if not 1 <= limit <= 50:
            raise BadInput(f"limit is {limit}.", next_step="Give 1 to 50.")
        index = await self._index(name)
        if product_of(name) is not None and not await self._is_complete(index):
            try:
                hits = await search_hub_docs(self._web, query, library=name, limit=limit)
            except NotFound:
                hits = []  # a mirror without that search
            except ServiceError as error:
                return await self._search_pages(name, index, query, limit, before=[failed(_SEARCH, error)])
            if hits:
                return _searched(name, hits)
        return await self._search_pages(name, index, query, limit, before=[])

    async def _is_complete(self, index: DocsIndex) -> bool:
        """Whether every page of the library is stored and the list of them is fresh: then no request is needed."""
        listed = await anyio.to_thread.run_sync(index.listed_at)
        if listed is None or self._clock.now() - listed > FRESH:
            return False
        return not await anyio.to_thread.run_sync(index.missing)

    async def _search_pages(
        self, name: str, index: DocsIndex, query: str, limit: int, *, before: list[SourceReport]
    ) -> DocSearch:
        """The library's pages, fetched and indexed here; those whose names hold words of the query come first."""
        reports = [*before, *await self._fill(name, index, query)]
        hits = await anyio.to_thread.run_sync(index.search, query, limit)
        paths, missing = await anyio.to_thread.run_sync(index.paths), await anyio.to_thread.run_sync(index.missing)
        return DocSearch(
            status="partial" if missing and len(missing) < len(paths) else overall(reports),
            sources=reports,
            library=name,
            searched="stored pages",
            items=[
                DocHit(
                    doc=f"{name}/{hit.path}" + (f"#{hit.anchor}" if hit.anchor else ""),
                    title=hit.title or hit.page,
                    page=hit.page,
                    snippet=" ".join(hit.snippet.split()),
                )
                for hit in hits
            ],
            pages_indexed=len(paths) - len(missing),
            pages_missing=len(missing),
        )

    async def read(self, doc: str, *, offset: int = 0) -> DocPage:
        """A page or one of its sections, `PAGE` characters a call.

        Args:
            doc: ``library/page``, ``library/page#section``, or the page's URL.
            offset: ``next_offset`` of the call before.

        Raises:
            NotFound: no such page.
            BadInput: no such section, or ``offset`` lies behind the end.
            ServiceError: the Hub cannot be asked and the page is not stored.
        """
        library, path, anchor = _address(doc)
        index = await self._index(library)
        text = await anyio.to_thread.run_sync(index.text, path)
        report = answered("stored documentation", http_status=None)
        if text is None:
            answer = await self._web.get("huggingface", f"/docs/{library}/{path}.md", cache=FRESH)
            text, report = answer.text, answered("huggingface docs", http_status=answer.status)
        sections = sections_of(text)
        named = {section.anchor: section for section in sections if section.anchor}
        if anchor and anchor not in named:
            raise BadInput(
                f"{library}/{path} has no section {anchor!r}.", next_step=did_you_mean(anchor, named, what="section")
            )
        chosen = text
        if anchor:
            first = named[anchor]
            later = [s.start for s in sections if s.start > first.start and s.level <= first.level]
            chosen = text[first.start : min(later, default=len(text))]
        if not 0 <= offset <= len(chosen):
            raise BadInput(f"The text has {len(chosen):,} characters.", next_step="Give a smaller offset.")
        end = offset + PAGE
        return DocPage(
            status="ok",
            sources=[report],
            doc=f"{library}/{path}" + (f"#{anchor}" if anchor else ""),
            url=f"{self._web.endpoint('huggingface').base}/docs/{library}/{path}",
            title=next((s.title for s in sections if s.level == 1), path),
            section=anchor or None,
            outline=[
                DocSection(id=s.anchor, title=s.title, level=s.level, chars=s.end - s.start) for s in named.values()
            ],
            text=chosen[offset:end],
            offset=offset,
            next_offset=end if end < len(chosen) else None,
            total=len(chosen),
        )

    async def _index(self, library: str) -> DocsIndex:
        path = self._workspace.cache / "docs" / f"{library}.db"
        return await anyio.to_thread.run_sync(DocsIndex, path)

    async def _fill(self, library: str, index: DocsIndex, query: str) -> list[SourceReport]:
        """Bring the index up to date within `FETCH_SECONDS` and `PAGES_A_CALL`, what ``query`` names first."""
        listed = await anyio.to_thread.run_sync(index.listed_at)
        if listed is None or self._clock.now() - listed > FRESH:
            try:
                pages = await self._list_pages(library)
            except ServiceError as error:
                stored = [] if listed is None else [answered("stored documentation", http_status=None)]
                return [failed("huggingface docs", error), *stored]
            await anyio.to_thread.run_sync(index.set_pages, pages, self._clock.now())
        missing = await anyio.to_thread.run_sync(index.missing)
        if not missing:
            return [answered("stored documentation", http_status=None)]
        words = set(re.findall(r"\w+", query.lower()))
        missing.sort(key=lambda path: (-len(words & set(re.split(r"[\W_]+", path.lower()))), path))
        problems: list[MlinternError] = []
        deadline = self._clock.monotonic() + FETCH_SECONDS
        turns = anyio.Semaphore(AT_ONCE)

        async def fetch(path: str) -> None:
            async with turns:
                if (problems and isinstance(problems[-1], ServiceError)) or self._clock.monotonic() > deadline:
                    return
                try:
                    answer = await self._web.get("huggingface", f"/docs/{library}/{path}.md", cache=FRESH)
                except MlinternError as error:
                    problems.append(error)
                    if not isinstance(error, NotFound):
                        return
                    text = ""  # listed, but gone: not asked for again
                else:
                    text = answer.text
                await anyio.to_thread.run_sync(partial(index.store, path, text, now=self._clock.now()))

        async with anyio.create_task_group() as group:
            for path in missing[:PAGES_A_CALL]:
                group.start_soon(fetch, path)
        serious = [problem for problem in problems if isinstance(problem, ServiceError)]
        return [failed("huggingface docs", serious[0]) if serious else answered("huggingface docs")]

    async def _list_pages(self, library: str) -> dict[str, str]:
        """Page paths and titles out of the library's llms.txt, else out of the sidebar of its first page."""
        pages: dict[str, str] = {}
        try:
            answer = await self._web.get("huggingface", f"/docs/{library}/llms.txt", cache=DAY)
            links = re.findall(r"\[([^\]]+)\]\(([^)\s]+)\)", answer.text)
        except NotFound:
            links = await self._sidebar(library)
        for title, url in links:
            path = page_of(url, library)
            if path:
                pages.setdefault(path, title)
        if not pages:
            raise ServiceError(
                f"The documentation of {library} lists no page.",
                service="huggingface",
                next_step="Try another library.",
            )
        return pages

    async def _sidebar(self, library: str) -> list[tuple[str, str]]:
        try:
            answer = await self._web.get("huggingface", f"/docs/{library}/index", expect="html", cache=DAY)
        except NotFound as error:
            raise NotFound(
                f"The Hub has no documentation of {library!r}.",
                next_step=did_you_mean(library, LIBRARIES, what="library"),
            ) from error
        links = re.findall(rf'<a[^>]+href="(/docs/{library}/[^"#?]+)"[^>]*>(.*?)</a>', answer.text, re.DOTALL)
        return [(re.sub(r"<[^>]+>|\s+", " ", title).strip() or url, url) for url, title in links]


def _searched(library: str, hits: list[DocsHit]) -> DocSearch:
    """What the Hub's search found, in the shape of a search."""
    items = [
        DocHit(
            doc=f"{library}/{hit.path}" + (f"#{hit.anchor}" if hit.anchor else ""),
            title=hit.title,
            page=hit.page,
            snippet=cut(hit.text, SNIPPET, words=True),
        )
        for hit in hits
    ]
    return DocSearch(
        status="ok", sources=[answered(_SEARCH)], library=library, searched="the Hub's search", items=items
    )


def page_of(url: str, library: str) -> str | None:
    """The path of a page inside a library's documentation, from its URL; None for anything else."""
    path = urlsplit(url).path
    prefix = f"/docs/{library}/"
    inside = path[len(prefix) :] if path.startswith(prefix) else "" if path.startswith("/") else path
    inside = re.sub(r"\.(md|html)$", "", inside).strip("/")
    return inside if inside and inside != "llms.txt" and ".." not in inside else None


def _address(doc: str) -> tuple[str, str, str]:
    """Library, page and section of ``trl/sft_trainer#packing`` or of the page's URL."""
    parts = split_url(doc.strip(), next_step="Give library/page, or the page's URL.")
    path = parts.path.strip("/")
    if parts.scheme:
        path = path.removeprefix("docs/")
    library, _, page = path.partition("/")
    page = re.sub(r"\.(md|html)$", "", page)
    if not page or ".." in page:
        raise BadInput(f"{doc!r} is no page.", next_step="Give library/page, as search_docs does.")
    return _library(library), page, parts.fragment


def _library(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9_-]+", name):
        raise BadInput(f"{name!r} is no library.", next_step=did_you_mean(name, LIBRARIES, what="library"))
    return name
