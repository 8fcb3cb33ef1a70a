"""The stand-ins of paper, code and Hub search refuse what their sources do not list.

Each request below is one that the real service answers with an error and that a kind stand-in would accept.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from tests.services.arxiv import ArxivApi
from tests.services.corpus import Corpus
from tests.services.github import GitHubStandIn
from tests.services.hf_papers import HuggingFacePapers
from tests.services.hub import HubStandIn
from tests.services.hub_listed import sent_by
from tests.services.openalex import OpenAlex
from tests.services.semantic_scholar import SemanticScholar
from tests.services.standin import StandIn

KINDS = {
    "arxiv": lambda: ArxivApi(Corpus()),
    "s2": lambda: SemanticScholar(Corpus()),
    "openalex": lambda: OpenAlex(Corpus()),
    "papers": lambda: HuggingFacePapers(Corpus()),
    "hub": HubStandIn,
    "github": GitHubStandIn,
}


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    with KINDS[request.param]().running() as running:
        yield running


REFUSED = [
    ("arxiv", "/api/query?search_query=all:one+all:two", 400),
    ("arxiv", "/api/query?search_query=(all:one", 400),
    ("arxiv", "/api/query?search_query=all:one&max_results=2001", 400),
    ("arxiv", "/api/query?search_query=all:one&sortBy=citations", 400),
    ("arxiv", "/api/query?search_query=all:one&limit=10", 400),
    ("arxiv", "/api/query", 400),
    ("s2", "/graph/v1/paper/search?query=low-rank", 400),
    ("s2", "/graph/v1/paper/search?query=x&limit=101", 400),
    ("s2", "/graph/v1/paper/search?query=x&offset=950&limit=51", 400),
    ("s2", "/graph/v1/paper/search?query=x&sort=citationCount:desc", 400),
    ("s2", "/graph/v1/paper/search/bulk?query=x&fields=tldr", 400),
    ("s2", "/graph/v1/paper/search/bulk?query=x&limit=10", 400),
    ("s2", "/graph/v1/snippet/search?query=x&fields=title", 400),
    ("s2", "/graph/v1/paper/ARXIV:2301.10000/citations?offset=9000&limit=1000", 400),
    ("s2", "/graph/v1/paper/ARXIV:2301.10000/references?limit=1001", 400),
    ("s2", "/recommendations/v1/papers/forpaper/ARXIV:2301.10000?limit=501", 400),
    ("openalex", "/works?search=what?", 400),
    ("openalex", "/works?search=x&per_page=200", 400),
    ("openalex", "/works?search=x&page=101&per_page=100", 400),
    ("openalex", "/works?search=x&page=1&cursor=*", 400),
    ("openalex", "/works?filter=author_name:x", 400),
    ("openalex", "/works?search=x&mailto=a@b.c", 400),
    ("papers", "/api/papers/search?q=x&limit=121", 400),
    ("papers", f"/api/papers/search?q={'x' * 251}", 400),
    ("papers", "/api/papers/search?query=x", 400),
    ("papers", "/api/daily_papers?limit=101", 400),
    ("hub", "/api/collections?paper=2305.18290", 400),
    ("hub", "/api/collections?item=2305.18290", 400),
    ("hub", "/api/collections?sort=downloads", 400),
    ("hub", "/api/models?direction=-1&page=2", 400),
    ("hub", "/api/docs/search?q=x&library=trl", 400),
    ("hub", "/api/docs/search?q=x&product=text-generation-inference", 400),
    ("github", f"/search/code?q={'x' * 257}", 422),
    ("github", "/search/code?q=x&sort=indexed", 422),
    ("github", "/search/code?q=repo:org/name", 422),
    ("github", "/search/repositories?q=a+OR+b+OR+c+OR+d+OR+e+OR+f+OR+g", 422),
]


@pytest.mark.parametrize(("service", "path", "status"), REFUSED, indirect=["service"])
def test_what_the_source_does_not_list_is_refused(service: StandIn, path: str, status: int) -> None:
    answer = httpx2.get(f"{service.url}{path}")
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("service", ["s2", "openalex"], indirect=True)
def test_a_header_that_is_not_listed_is_refused(service: StandIn) -> None:
    path = "/works" if isinstance(service, OpenAlex) else "/graph/v1/paper/search"
    answer = httpx2.get(f"{service.url}{path}", params={"query": "x"}, headers={"authorization": "Bearer x"})
    assert answer.status_code == 400


def test_what_the_hub_takes_is_read_from_the_installed_package() -> None:
    assert {"owner", "item", "sort", "limit"} <= sent_by("list_collections") and "paper" not in sent_by(
        "list_collections"
    )
    assert {"search", "filter", "expand", "pipeline_tag"} <= sent_by("list_models")
