"""Stand-ins for arXiv: the Atom API, the site with HTML, sources and PDFs, and ar5iv."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tests.services.boolean import matches
from tests.services.corpus import Corpus, Entry
from tests.services.listed import Call, like, listed, one_of, whole
from tests.services.standin import StandIn

_FEED = (
    "<?xml version='1.0' encoding='UTF-8'?>\n"
    '<feed xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/" xmlns:arxiv="http://arxiv.org/schemas/atom" '
    'xmlns="http://www.w3.org/2005/Atom">\n'
    "<id>https://arxiv.org/api/x</id><title>arXiv Query</title><updated>2026-04-12T22:09:26Z</updated>\n"
    "<opensearch:itemsPerPage>{size}</opensearch:itemsPerPage>"
    "<opensearch:totalResults>{total}</opensearch:totalResults>"
    "<opensearch:startIndex>{start}</opensearch:startIndex>\n{entries}</feed>\n"
)
_ID = re.compile(r"(?:\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})(?:v\d+)?")
_TERM = (
    r'(?:ti|au|abs|co|jr|cat|rn|id|all):(?:"[^"]+"|[^\s()":]+)|submittedDate:\[\d{8,14} TO \d{8,14}\]'
    r'|"[^"]+"|[^\s()":]+'
)
_MANUAL = "arXiv API User's Manual, info.arxiv.org/help/api/user-manual.html, read 2026-11-28"


def _is_expression(text: str) -> bool:
    """Terms joined by AND, OR, ANDNOT in balanced groups (sections 3.1.1.3 and 5.1); two terms need an operator."""
    tokens = re.findall(rf"\(|\)|\b(?:ANDNOT|AND|OR)\b|{_TERM}|\S", text)
    depth, expect_term = 0, True
    for token in tokens:
        if token == "(":
            if not expect_term:
                return False
            depth += 1
        elif token == ")":
            depth -= 1
            if depth < 0 or expect_term:
                return False
        elif token in ("AND", "OR", "ANDNOT"):
            if expect_term:
                return False
            expect_term = True
        elif re.fullmatch(_TERM, token):
            if not expect_term:
                return False
            expect_term = False
        else:
            return False
    return depth == 0 and not expect_term


QUERY = Call(
    source=f"{_MANUAL}, sections 3.1.1 and 5.1",
    parameters={
        "search_query": _is_expression,
        "id_list": like(r"[^\s]*"),
        "start": whole(),
        "max_results": whole(0, 2000),
        "sortBy": one_of("relevance", "lastUpdatedDate", "submittedDate"),
        "sortOrder": one_of("ascending", "descending"),
    },
    together=(
        lambda asked: "" if asked.get("search_query") or asked.get("id_list") else "neither search_query nor id_list",
        lambda asked: "sortOrder without sortBy" if "sortOrder" in asked and "sortBy" not in asked else "",
        lambda asked: (
            "start and max_results pass 30,000"
            if int(asked.get("start", 0)) + int(asked.get("max_results", 10)) > 30_000
            else ""
        ),
    ),
)
PAGE = Call(source="arXiv, robots.txt and the help page Accessing arXiv's full text, read 2026-11-28", parameters={})
STUB = "<!DOCTYPE html><html><body><h1>No HTML for '{name}'</h1><p>No HTML is available.</p></body></html>"


class ArxivApi(StandIn):
    """``/api/query``. ``empty_pages``: how many first pages come back empty although there are hits."""

    def __init__(self, corpus: Corpus, *, latency: float = 0.0) -> None:
        self.corpus = corpus
        self.empty_pages = 0
        super().__init__([Route("/api/query", listed(self._query, QUERY, _refused))], latency=latency)

    async def _query(self, request: Request) -> Response:
        query = request.query_params
        start, size = int(query.get("start", 0)), int(query.get("max_results", 10))
        names = [name for name in query.get("id_list", "").split(",") if name]
        malformed = next((name for name in names if not _ID.fullmatch(name)), None)
        if malformed is not None:
            return _atom(_error(f"incorrect id format for {malformed}"), total=1, start=0, size=1, status=400)
        if names:
            bare = [re.sub(r"v\d+$", "", name) for name in names]
            hits = [entry for entry in self.corpus.entries if entry.arxiv in bare]
        else:
            hits = self._matching(query.get("search_query", ""))
        if query.get("sortBy") == "submittedDate":
            hits = sorted(hits, key=lambda entry: entry.published, reverse=True)
        page = hits[start : start + size]
        if self.empty_pages:
            self.empty_pages -= 1
            page = []
        return _atom("".join(map(_entry, page)), total=len(hits), start=start, size=size)

    def _matching(self, expression: str) -> list[Entry]:
        categories = re.findall(r"cat:([\w.*-]+)", expression)
        years = re.search(r"submittedDate:\[(\d{4})\d* TO (\d{4})", expression)
        bare = re.sub(r"\(cat:[^)]*\)|(?<=\bAND )cat:\S+|submittedDate:\[[^\]]*\]", "", expression)
        bare = re.sub(r"(?:^\s*AND\b|\bAND\b(?=\s*(?:AND\b|$|\))))", "", bare).strip()
        hits = [one for one in self.corpus.ranked(bare) if not bare or matches(bare, one.fields)]
        if categories:
            hits = [entry for entry in hits if any(fnmatchcase(entry.category, name) for name in categories)]
        if years:
            hits = [entry for entry in hits if int(years.group(1)) <= entry.year <= int(years.group(2))]
        return hits


class ArxivSite(StandIn):
    """``/html``, ``/src`` and ``/pdf``, and so ar5iv too, which has ``/html`` alone.

    Attributes:
        pages: id (with or without version) to HTML; papers of the corpus in ``has_html`` get a page with their
            bibliography; every other id gets arXiv's stub, with status 200.
    """

    def __init__(self, corpus: Corpus, *, has_html: Sequence[int] = (), latency: float = 0.0) -> None:
        self.corpus = corpus
        self.has_html = set(has_html)
        self.pages: dict[str, str] = {}
        self.sources: dict[str, bytes] = {}
        self.pdfs: dict[str, bytes] = {}
        super().__init__(
            [
                Route("/html/{name:path}", listed(self._html, PAGE)),
                Route("/src/{name:path}", listed(self._source, PAGE)),
                Route("/pdf/{name:path}", listed(self._pdf, PAGE)),
            ],
            latency=latency,
        )

    async def _html(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name in self.pages:
            return HTMLResponse(self.pages[name])
        entry = self.corpus.named(f"arxiv:{name}")
        if entry is not None and entry.number in self.has_html:
            return HTMLResponse(latexml_page(entry, [self.corpus.entries[number] for number in entry.references]))
        return HTMLResponse(STUB.format(name=name))

    async def _source(self, request: Request) -> Response:
        return _file(self.sources.get(request.path_params["name"]), "application/gzip")

    async def _pdf(self, request: Request) -> Response:
        return _file(self.pdfs.get(request.path_params["name"]), "application/pdf")


def latexml_page(entry: Entry, cited: Sequence[Entry]) -> str:
    """A paper in the shape of LaTeXML with a bibliography; every third entry names no id."""
    items = "".join(
        f'<li id="bib.bib{place}" class="ltx_bibitem"><span class="ltx_tag ltx_role_refnum ltx_tag_bibitem">[{place}]'
        f'</span><span class="ltx_bibblock">{" and ".join(one.authors)}.</span>'
        f'<span class="ltx_bibblock">{escape(one.title)}.</span>'
        f'<span class="ltx_bibblock">{"" if place % 3 == 0 else f"arXiv:{one.arxiv}, "}{one.year}.</span>'
        "</li>"
        for place, one in enumerate(cited, 1)
    )
    return (
        '<!DOCTYPE html><html><body><div id="watermark-tr">'
        f"arXiv:{entry.arxiv}v2 [{entry.category}] 1 Jan {entry.year}</div>"
        f'<article class="ltx_document"><h1 class="ltx_title ltx_title_document">{escape(entry.title)}</h1>'
        f'<div class="ltx_abstract"><h6 class="ltx_title ltx_title_abstract">Abstract</h6>'
        f'<p class="ltx_p">{escape(entry.abstract)}</p></div>'
        '<section id="S1" class="ltx_section"><h2 class="ltx_title ltx_title_section">'
        '<span class="ltx_tag ltx_tag_section">1 </span>Introduction</h2>'
        '<div id="S1.p1" class="ltx_para"><p class="ltx_p">We build on '
        '<cite class="ltx_cite">[<a href="#bib.bib1" class="ltx_ref">1</a>]</cite>.</p></div></section>'
        '<section id="bib" class="ltx_bibliography"><h2 class="ltx_title ltx_title_bibliography">References</h2>'
        f'<ul class="ltx_biblist">{items}</ul></section></article></body></html>'
    )


def _entry(entry: Entry) -> str:
    authors = "".join(f"<author><name>{escape(name)}</name></author>" for name in entry.authors)
    doi = f"<arxiv:doi>{entry.doi}</arxiv:doi>" if entry.doi else ""
    return (
        f"<entry><id>http://arxiv.org/abs/{entry.arxiv}v2</id><title>{escape(entry.title)}</title>"
        f"<updated>{entry.published}T10:00:00Z</updated><published>{entry.published}T10:00:00Z</published>"
        f'<link href="https://arxiv.org/abs/{entry.arxiv}v2" rel="alternate" type="text/html"/>'
        f"<summary>{escape(entry.abstract)}</summary>{authors}{doi}"
        f'<category term="{entry.category}" scheme="http://arxiv.org/schemas/atom"/>'
        f'<arxiv:primary_category term="{entry.category}"/></entry>\n'
    )


def _error(reason: str) -> str:
    return (
        f"<entry><id>https://arxiv.org/api/errors#{reason.replace(' ', '_')}</id><title>Error</title>"
        f"<updated>2026-04-12T22:59:06Z</updated><summary>{escape(reason)}</summary></entry>"
    )


def _refused(reason: str) -> Response:
    return _atom(_error(reason), total=1, start=0, size=1, status=400)


def _atom(entries: str, *, total: int, start: int, size: int, status: int = 200) -> Response:
    body = _FEED.format(entries=entries, total=total, start=start, size=size)
    return Response(body, status_code=status, media_type="application/atom+xml")


def _file(data: bytes | None, kind: str) -> Response:
    if data is None:
        return HTMLResponse("<!doctype html><html><title>404</title></html>", status_code=404)
    return Response(data, media_type=kind)
