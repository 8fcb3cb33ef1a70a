"""From a paper to a recipe, to evidence and to BibTeX."""

from __future__ import annotations

import dataclasses
import math

import anyio
import pytest

from mlintern.tools.errors import BadInput
from mlintern.tools.papers.bibtex import bibtex
from mlintern.tools.papers.document import Block, Document, Reference, Section
from mlintern.tools.papers.evidence import disagreements, passages
from mlintern.tools.papers.ids import parse_id
from mlintern.tools.papers.paper import Paper
from mlintern.tools.papers.recipe import kind_of, recipe_of
from mlintern.tools.papers.resolving import MOST_AT_SEMANTIC_SCHOLAR, Resolved, named_by, resolve
from mlintern.tools.papers.service import PaperService
from mlintern.tools.papers.text_sources import Text
from tests.services import standin
from tests.tools.papers.conftest import DATA, World

pytestmark = pytest.mark.anyio

PAPER = "2301.10000"


def document(**sections: str) -> Document:
    return Document(
        source="x",
        title="T",
        abstract="",
        sections=tuple(
            Section(name, "", name.title(), 1, (Block(f"{name}.p1", text),))
            for name, text in sections.items()
        ),
    )  # fmt: skip


@pytest.fixture
def structures(world: World) -> World:
    world.site.pages[PAPER] = (DATA / "structures.html").read_text()
    world.hugging_face.details[PAPER] = {
        "githubRepo": "https://github.com/acme/train", "projectPage": "https://acme.github.io", "upvotes": 42,
        "ai_summary": "A  summary.",
        "linkedModels": [{"id": "acme/small", "downloads": 5}, {"id": "acme/big", "downloads": 90}],
        "linkedDatasets": [{"id": "acme/data", "downloads": 1}, None],
    }  # fmt: skip
    return world


async def test_a_recipe_has_settings_algorithms_and_links_with_their_places(
    papers: PaperService, structures: World
) -> None:
    result = await papers.read(paper_id=PAPER, part="recipe")
    recipe = result.recipe
    assert result.status == "ok" and recipe is not None
    (table,) = recipe.hyperparameters
    assert (table.label, table.section, table.rows_total) == ("Table 1", "S1", 3)
    assert table.rows[0] == {
        "Model": "1.7B", "Data": "math", "SFT lr": r"$1\times 10^{-5}$", "SFT epochs": "3", "GRPO lr": "1e-6",
        "GRPO G": "16",
    }  # fmt: skip
    assert [one.label for one in recipe.algorithms] == ["Algorithm 1", "Listing 1"]
    assert ("beta", r"$\beta=0.04$", "S1") in [(one.name, one.value, one.section) for one in recipe.values]
    assert (recipe.datasets[0].name, recipe.datasets[0].section) == ("Mixture-of-Thoughts", "S1")
    links = {link.url: (link.kind, link.section, link.source) for link in recipe.links}
    assert links["https://github.com/acme/gpqa"] == ("code", "front", "paper")
    assert links["https://huggingface.co/open-r1/Mixture-of-Thoughts"][1:] == ("S1", "paper")
    assert links["https://github.com/acme/train"] == ("code", "", "hf_papers")
    assert links[f"{structures.hugging_face.url}/datasets/acme/data"] == ("dataset", "", "hub")
    models = [link for link in recipe.links if link.kind == "model" and link.source == "hub"]
    assert [link.downloads for link in models] == [90, 5]
    assert (recipe.upvotes, recipe.summary) == (42, "A summary.")


async def test_a_recipe_stands_without_hugging_face_and_says_so(papers: PaperService, structures: World) -> None:
    structures.hugging_face.fail_always(standin.too_many(300))
    result = await papers.read(paper_id=PAPER, part="recipe")
    assert result.recipe is not None and result.recipe.hyperparameters
    assert result.sources[-1].status == "rate_limited" and any("could not be asked" in note for note in result.notes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("We use a learning rate of 1e-5 and a batch size of 64.", {("learning rate", "1e-5"), ("batch size", "64")}),
        ("trained for 3 epochs with a learning rate of $5\\times 10^{-7}$",
         {("epochs", "3"), ("learning rate", "$5\\times 10^{-7}$")}),
        ("with warmup ratio 0.1, weight decay of 0.01 and temperature 0.7",
         {("warmup", "0.1"), ("weight decay", "0.01"), ("temperature", "0.7")}),
        ("on 8 H100 GPUs for 10k steps", {("hardware", "8 H100"), ("steps", "10k")}),
        ("The rate of learning in schools is high.", set()),
    ],
)  # fmt: skip
def test_settings_in_the_text_are_found_with_their_words(text: str, expected: set[tuple[str, str]]) -> None:
    values = recipe_of(document(S1=text)).values
    assert {(one.name, one.value) for one in values} == expected
    assert all(one.section == "S1" and one.value in one.text for one in values)


def test_models_and_benchmarks_are_named_by_how_often_they_stand_there() -> None:
    recipe = recipe_of(
        document(S1="We train Qwen3-1.7B-Base.", S2="Qwen3-1.7B-Base beats Llama-3.1-8B on GPQA Diamond.")
    )
    assert [(one.name, one.times, one.section) for one in recipe.base_models] == [
        ("Qwen3-1.7B-Base", 2, "S1"), ("Llama-3.1-8B", 1, "S2"),
    ]  # fmt: skip
    assert [one.name for one in recipe.datasets] == ["GPQA Diamond"]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://github.com/a/b", "code"), ("https://huggingface.co/datasets/a/b", "dataset"),
        ("https://huggingface.co/a/b", "model"), ("https://huggingface.co/papers/2305.18290", "other"),
        ("https://a.github.io/x", "project"), ("https://arxiv.org/abs/1", "other"),
    ],
)  # fmt: skip
def test_an_address_is_what_it_leads_to(url: str, kind: str) -> None:
    assert kind_of(url) == kind


async def test_a_paper_and_what_it_cites_are_given_as_bibtex(papers: PaperService, structures: World) -> None:
    own = await papers.read(paper_id=PAPER, part="bibtex")
    assert own.text.startswith("@misc{lovelace2023own,")
    assert "eprint        = {2301.10000}" in own.text and "author        = {Ada Lovelace and Alan Turing}" in own.text
    cited = await papers.read(paper_id=PAPER, part="bibtex", section="references")
    assert cited.text.startswith("@misc{shao2024deepseekmath,") and "eprint        = {2402.03300}" in cited.text


def test_bibtex_escapes_what_latex_would_read_and_tells_equal_keys_apart() -> None:
    taken: set[str] = set()
    entries = [
        bibtex(title="Costs & 10% of $a_1$", authors=["Ann Lee"], year=2024, venue="ICML", taken=taken)
        for _ in range(2)
    ]
    assert r"title         = {{Costs \& 10\% of $a_1$}}" in entries[0] and entries[0].startswith(
        "@article{lee2024costs,"
    )
    assert entries[1].startswith("@article{lee2024costsb,")


# Evidence ----------------------------------------------------------------------------------------------------------


async def test_a_question_gets_quotations_with_their_places(papers: PaperService, structures: World) -> None:
    result = await papers.ask(question="Which data and learning rate were used for GRPO?", paper_ids=[PAPER])
    assert result.status == "ok" and [one.paper_id for one in result.papers] == [f"arxiv:{PAPER}"]
    best = result.passages[0]
    assert best.score == 1.0 and best.section == "S1" and "SFT lr" in best.quotation
    read = await papers.read(paper_id=best.paper_id, section=best.paragraph)
    assert best.quotation in read.text


async def test_without_papers_the_best_that_a_search_finds_are_asked(papers: PaperService, world: World) -> None:
    result = await papers.ask(question="reward optimization of small language models")
    assert result.papers and result.passages
    assert {report.name for report in result.sources} >= {"arxiv", "hf_papers", "semantic_scholar", "openalex"}
    assert all("abstract could be had" in note for note in result.notes)


async def test_what_could_not_be_read_is_told(papers: PaperService, world: World) -> None:
    for service in world.services:
        service.fail_always(standin.too_many(300))
    result = await papers.ask(question="reward", paper_ids=[PAPER])
    assert (result.status, result.passages) == ("rate_limited", [])
    with pytest.raises(BadInput):
        await papers.ask(question=" ")
    with pytest.raises(BadInput):
        await papers.ask(question="x", paper_ids=["2301.10000"] * 9)


def test_passages_of_two_papers_that_lean_opposite_ways_stand_side_by_side() -> None:
    one = document(
        S1="We find that curriculum learning clearly improves small models on every benchmark that we tried."
    )
    other = document(
        S4="In our experiments curriculum learning degrades small models and does not help on any benchmark."
    )
    found = passages("Does curriculum learning help small models?", [one, other], most=4)
    ((first, second, terms),) = disagreements(found)
    assert {first.paper, second.paper} == {0, 1} and {"curriculum", "learning"} <= set(terms)


def test_a_long_passage_is_quoted_where_it_bears_on_the_question() -> None:
    long = " ".join(f"Sentence number {n} is about nothing." for n in range(80))
    text = f"{long} The warmup ratio decides everything. {long}"
    (best, *_) = passages("warmup ratio", [document(S1=text)], most=1)
    assert "The warmup ratio decides everything." in best.text and len(best.text) < 720
    assert best.text.startswith("... ") and best.text.endswith(" ...")


async def test_references_without_an_id_are_found_by_their_titles_ten_to_a_request(
    papers: PaperService, world: World
) -> None:
    world.site.has_html.add(0)
    plain = await papers.read(paper_id=PAPER, section="references")
    nameless = [one for one in plain.references if not one.paper_id]
    assert nameless and world.api.seen == []
    resolved = await papers.read(paper_id=PAPER, section="references", format="records")
    by_title = {entry.title: f"arxiv:{entry.arxiv}" for entry in world.corpus.entries}
    assert len(resolved.references) == len(plain.references) and len(world.api.seen) == 1
    assert [one.paper_id for one in resolved.references] == [by_title[one.title] for one in resolved.references]


async def test_references_stay_as_printed_where_no_source_can_be_asked(papers: PaperService, world: World) -> None:
    world.site.has_html.add(0)
    world.api.fail_always(standin.too_many(300))
    world.semantic_scholar.fail_always(standin.too_many(300))
    result = await papers.read(paper_id=PAPER, section="references", format="records")
    assert any(not one.paper_id for one in result.references) and result.status == "partial"
    assert [one.status for one in result.sources[-2:]] == ["rate_limited", "rate_limited"]
    assert not any("Better sources" in note for note in result.notes)
    assert any("0 of" in note and "not looked up" in note for note in result.notes)


async def test_titles_that_arxiv_does_not_give_are_asked_at_semantic_scholar(
    papers: PaperService, world: World
) -> None:
    world.site.has_html.add(0)
    world.api.fail_always(standin.too_many(300))
    result = await papers.read(paper_id=PAPER, section="references", format="records")
    by_title = {entry.title: f"arxiv:{entry.arxiv}" for entry in world.corpus.entries}
    assert [one.paper_id for one in result.references] == [by_title[one.title] for one in result.references]
    assert 1 <= len(world.semantic_scholar.seen) <= MOST_AT_SEMANTIC_SCHOLAR
    assert (result.sources[-1].name, result.sources[-1].status) == ("semantic_scholar", "ok")


@pytest.mark.parametrize(
    "altered", [{"title": "A study of quite another matter"}, {"authors": [{"name": "Zoe Qux"}]}]
)
async def test_a_near_match_is_not_taken(papers: PaperService, world: World, altered: dict[str, object]) -> None:
    world.site.has_html.add(0)
    world.api.fail_always(standin.too_many(300))
    world.semantic_scholar.altered = {entry.number: altered for entry in world.corpus.entries}
    result = await papers.read(paper_id=PAPER, section="references", format="records")
    assert any(not one.paper_id for one in result.references)
    assert any("0 of" in note and "as printed" in note for note in result.notes)


async def test_the_recipe_gives_the_resolved_references_where_they_are_asked_for(
    papers: PaperService, world: World
) -> None:
    world.site.has_html.add(0)
    alone = await papers.read(paper_id=PAPER, part="recipe")
    assert alone.references == [] and world.api.seen == []
    both = await papers.read(paper_id=PAPER, part="recipe", section="references")
    assert both.recipe is not None and both.references and all(one.paper_id for one in both.references)


class Titles:
    """Sources of titles that know nothing, count their requests, and may be slow."""

    name = "titles"

    def __init__(self, *, slow: bool = False) -> None:
        self.asked, self.slow = 0, slow

    async def by_title(self, asked: object) -> list[Paper] | Paper | None:
        self.asked += 1
        await anyio.sleep(math.inf if self.slow else 0)
        return [] if isinstance(asked, list) else None


async def found_by(arxiv: Titles, semantic_scholar: Titles, *, deadline: float) -> Resolved:
    entries = tuple(Reference(f"b{n}", "", title=f"A long title of the paper number {n}") for n in range(90))
    text = Text(parse_id(PAPER), dataclasses.replace(document(), references=entries), ())
    with anyio.fail_after(60):
        return await resolve(text, arxiv=arxiv, semantic_scholar=semantic_scholar, deadline=deadline)  # type: ignore[arg-type]


async def test_the_look_up_of_titles_is_bounded_in_requests_and_in_time() -> None:
    arxiv, semantic_scholar = Titles(), Titles()
    found = await found_by(arxiv, semantic_scholar, deadline=60)
    assert (arxiv.asked, semantic_scholar.asked) == (4, MOST_AT_SEMANTIC_SCHOLAR)
    assert found.notes[0].startswith("0 of 90 entries") and "50 titles were not looked up" in found.notes[0]
    late = await found_by(Titles(), Titles(slow=True), deadline=0.05)
    assert "50 titles were not looked up" in late.notes[0] and len(late.references) == 90


SEEN = Paper(
    ("s2:5", "doi:10.1/x"), "Direct preference optimization for models", authors=("Rafael Rafailov",), year=2023
)


@pytest.mark.parametrize(
    ("entry", "taken"),
    [
        (Reference("b", "", SEEN.title.upper(), authors=("Rafailov, R.",), year=2024), True),
        (Reference("b", f"R. Rafailov. {SEEN.title}.", SEEN.title), True),
        (Reference("b", f"Ann Lee. {SEEN.title}.", SEEN.title), False),
        (Reference("b", "", SEEN.title, authors=("Ann Lee",)), False),
        (Reference("b", "", SEEN.title + " revisited", authors=("Rafael Rafailov",)), False),
        (Reference("b", "", SEEN.title, authors=("Rafael Rafailov",), year=2015), False),
    ],
)
def test_a_title_names_a_reference_only_with_its_authors_and_year(entry: Reference, taken: bool) -> None:
    assert (named_by(entry, [SEEN]).doi, named_by(entry, [SEEN]).s2) == (("10.1/x", "5") if taken else ("", ""))
