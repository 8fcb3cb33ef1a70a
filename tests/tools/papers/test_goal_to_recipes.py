"""The documented walk: from a goal to a table of recipes, each value with its paper and section."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from mlintern.tools.papers.service import PaperService
from tests.services.corpus import Corpus, Entry
from tests.tools.papers.conftest import DATA, World, open_world

pytestmark = pytest.mark.anyio

GOAL = "improve GPQA of a 1.7B model"

SECOND = """
<html><body><article class="ltx_document">
<h1 class="ltx_title ltx_title_document">Distilling science reasoning into 1.7B models</h1>
<div class="ltx_abstract"><p class="ltx_p">We distill long traces and improve GPQA.</p></div>
<section class="ltx_section" id="S2"><h2 class="ltx_title"><span class="ltx_tag">2 </span>Training</h2>
<div class="ltx_para" id="S2.p1"><p class="ltx_p">We train Qwen3-1.7B-Base for 2 epochs with a learning rate of 4e-5
and a batch size of 128 on OpenThoughts3.</p></div>
<figure class="ltx_table" id="S2.T1"><figcaption class="ltx_caption"><span class="ltx_tag">Table 1: </span>Training
hyperparameters</figcaption><table class="ltx_tabular">
<tr class="ltx_tr">
<th class="ltx_td ltx_th ltx_th_column">Model</th>
<th class="ltx_td ltx_th ltx_th_column" colspan="2">SFT</th></tr>
<tr class="ltx_tr">
<th class="ltx_td ltx_th ltx_th_column"></th>
<th class="ltx_td ltx_th ltx_th_column">lr</th>
<th class="ltx_td ltx_th ltx_th_column">epochs</th></tr>
<tr class="ltx_tr">
<td class="ltx_td">1.7B</td><td class="ltx_td">4e-5</td><td class="ltx_td">2</td></tr></table></figure>
</section></article></body></html>
"""


def entry(number: int, title: str, abstract: str, *, citations: int) -> Entry:
    return Entry(
        number=number,
        arxiv=f"250{1 + number}.1000{number}",
        title=title,
        authors=("Ada Lovelace",),
        year=2025,
        citations=citations,
        abstract=abstract,
    )


@dataclass(frozen=True)
class Literature(Corpus):
    """Two papers with recipes for the goal, among famous ones that only share words with it."""

    def __post_init__(self) -> None:
        entries = (
            entry(0, "GPQA gains for a 1.7B model by reinforcement learning",
                  "We improve the GPQA accuracy of a 1.7B language model.", citations=3),
            entry(1, "Distilling science reasoning into 1.7B models",
                  "Long traces improve GPQA of a 1.7B base model.", citations=1),
            entry(2, "GPQA: a graduate-level question answering benchmark",
                  "A dataset of hard questions in science.", citations=900),
            entry(3, "A model of everything", "We improve a model of language.", citations=90_000),
            entry(4, "Improving image models", "Diffusion at scale.", citations=7_000),
        )  # fmt: skip
        object.__setattr__(self, "entries", entries)


@pytest.fixture
def world() -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        world = open_world(stack, Literature())
        first, second = (one.arxiv for one in world.corpus.entries[:2])
        world.site.pages[first] = (DATA / "structures.html").read_text()
        world.site.pages[second] = SECOND
        world.hugging_face.details[first] = {"githubRepo": "https://github.com/acme/train", "upvotes": 42}
        world.hugging_face.details[second] = {"linkedModels": [{"id": "acme/distilled-1.7b", "downloads": 7}]}
        yield world


async def test_a_goal_ends_in_a_table_of_recipes_with_their_sources(papers: PaperService, world: World) -> None:
    hits = await papers.search(query=GOAL, limit=5)
    first, second = (f"arxiv:{one.arxiv}" for one in world.corpus.entries[:2])
    assert {one.paper_id for one in hits.items[:2]} == {first, second}, "by what they say, not by who cites them"
    assert all("1.7b" in one.why and "gpqa" in one.why for one in hits.items[:2])

    table: list[tuple[str, str, str, str, str]] = []  # paper, where, data, learning rate, address
    for hit in hits.items[:2]:
        read = await papers.read(paper_id=hit.paper_id, part="recipe")
        assert read.recipe is not None and read.status == "ok"
        address = next(link.url for link in read.recipe.links if link.source in ("hf_papers", "hub"))
        for settings in read.recipe.hyperparameters:
            for row in settings.rows:
                rate = next(value for name, value in row.items() if name.endswith("lr"))
                table.append((hit.paper_id, settings.label, row.get("Data", ""), rate, address))
    assert (first, "Table 1", "math", r"$1\times 10^{-5}$", "https://github.com/acme/train") in table
    assert (second, "Table 1", "", "4e-5", f"{world.hugging_face.url}/acme/distilled-1.7b") in table

    for paper, label, _, rate, _ in table:  # whoever reads the table finds each value where it says
        source = await papers.read(paper_id=paper, section=label)
        assert rate in source.text

    said = (await papers.read(paper_id=second, part="recipe")).recipe
    assert said is not None
    values = {(one.name, one.value, one.section) for one in said.values}
    assert {("learning rate", "4e-5", "S2"), ("batch size", "128", "S2"), ("epochs", "2", "S2")} <= values
    assert "Qwen3-1.7B-Base" in [one.name for one in said.base_models]


async def test_evidence_for_the_goal_is_quoted_with_its_places(papers: PaperService, world: World) -> None:
    found = await papers.ask(question=f"Which data and learning rate {GOAL}?")
    second = f"arxiv:{world.corpus.entries[1].arxiv}"
    assert any(one.paper_id == second and one.section == "S2" and "4e-5" in one.quotation for one in found.passages)
