"""The paper services on loopback, and a `PaperService` that is pointed at them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlintern.tools.papers.service import PaperService
from mlintern.tools.web import Web
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.arxiv import ArxivApi, ArxivSite
from tests.services.corpus import Corpus
from tests.services.hf_papers import HuggingFacePapers
from tests.services.openalex import OpenAlex
from tests.services.semantic_scholar import SemanticScholar
from tests.services.standin import StandIn

DATA = Path(__file__).parent / "data"


@dataclass
class World:
    """All services, each on a port of its own."""

    corpus: Corpus
    api: ArxivApi
    site: ArxivSite
    ar5iv: ArxivSite
    semantic_scholar: SemanticScholar
    openalex: OpenAlex
    hugging_face: HuggingFacePapers

    @property
    def services(self) -> list[StandIn]:
        return [self.api, self.site, self.ar5iv, self.semantic_scholar, self.openalex, self.hugging_face]

    @property
    def environ(self) -> dict[str, str]:
        return {
            "MLINTERN_ARXIV_API_URL": self.api.url,
            "MLINTERN_ARXIV_URL": self.site.url,
            "MLINTERN_AR5IV_URL": self.ar5iv.url,
            "MLINTERN_S2_URL": self.semantic_scholar.url,
            "MLINTERN_OPENALEX_URL": self.openalex.url,
            "HF_ENDPOINT": self.hugging_face.url,
        }


def open_world(stack: contextlib.ExitStack, corpus: Corpus, *, latency: float = 0.0) -> World:
    """Start every service; ``stack`` stops them."""
    world = World(
        corpus,
        ArxivApi(corpus, latency=latency),
        ArxivSite(corpus, latency=latency),
        ArxivSite(corpus, latency=latency),
        SemanticScholar(corpus, latency=latency),
        OpenAlex(corpus, latency=latency),
        HuggingFacePapers(corpus, latency=latency),
    )
    for service in world.services:
        stack.enter_context(service.running())
    return world


@pytest.fixture
def world() -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield open_world(stack, Corpus())


@pytest.fixture
async def web(world: World, workspace: Workspace, clock: FakeClock) -> AsyncIterator[Web]:
    client = Web(workspace, clock, environ=world.environ, rng=random.Random(0))
    yield client
    await client.close()


@pytest.fixture
def papers(web: Web, workspace: Workspace, clock: FakeClock) -> PaperService:
    """Without a deadline of its own for walks: each polite wait moves the clock of the tests."""
    return PaperService(web, workspace, clock, walk_deadline=1e6)
