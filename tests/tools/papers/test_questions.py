"""From a question to its papers: terms, what each source is asked, and the ranking of what came back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.papers.paper import Paper
from mlintern.tools.papers.query import (
    Query,
    forms_for_arxiv,
    forms_for_openalex,
    forms_for_semantic_scholar,
    without_request_words,
)
from mlintern.tools.papers.ranking import answers, closeness
from mlintern.tools.papers.service import PaperService
from mlintern.tools.papers.terms import terms_of
from tests.services import boolean
from tests.services.arxiv import QUERY
from tests.services.openalex import WORKS
from tests.services.semantic_scholar import SEARCH
from tests.tools.papers.conftest import World

pytestmark = pytest.mark.anyio

TRADING = "How is reinforcement learning applied in financial markets, particularly in automated trading systems?"


def asked(text: str, **filters: object) -> Query:
    return Query(text=text, words=without_request_words(text), **filters)  # type: ignore[arg-type]


async def test_recorded_questions_find_their_papers(recorded: Path) -> None:
    """The first eight questions of SPAR-bench over its pool of papers; benchmarks/paper_questions.py has them all."""
    from benchmarks.paper_questions import SOURCES, measure

    row = await measure(recorded / "paper-questions", first=8, sources=list(SOURCES))
    assert row["ndcg"] >= 0.70 and row["requests"] <= 8


@pytest.mark.parametrize(
    ("text", "key", "phrases"),
    [
        (TRADING, ("reinforcement", "learning", "financial", "markets", "automated", "trading", "systems"),
         ("reinforcement learning", "financial markets", "automated trading", "trading systems")),
        ("Could you provide me some studies that use 1.7B models for math?", ("1.7b", "models", "math"),
         ("1.7b models",)),
        ("state-of-the-art methods", ("methods",), ()),
        ("low-rank adaptation", ("low", "rank", "adaptation"), ("low rank", "rank adaptation")),
        ("???", (), ()),
    ],
)  # fmt: skip
def test_a_question_is_reduced_to_what_it_is_about(text: str, key: tuple[str, ...], phrases: tuple[str, ...]) -> None:
    assert (terms_of(text).key, terms_of(text).phrases) == (key, phrases)


def test_specific_terms_come_before_those_of_every_paper() -> None:
    assert terms_of(TRADING).specific[:4] == ("reinforcement", "financial", "markets", "trading")


def test_a_short_name_and_what_it_stands_for_find_each_other() -> None:
    assert terms_of("DPO for small models").synonyms == ("direct preference optimization",)
    assert terms_of("direct preference optimization").synonyms == ("dpo",)


def test_a_question_is_never_asked_with_all_of_its_words() -> None:
    pairs, anything = forms_for_arxiv(asked(TRADING))
    paper = {"all": boolean.plain("Deep trading agents for financial markets"), "ti": "", "abs": "", "au": ""}
    assert boolean.matches(pairs, paper) and boolean.matches(anything, paper)
    other = {**paper, "all": "trading places"}
    assert not boolean.matches(pairs, other) and boolean.matches(anything, other)


def test_few_words_are_asked_together_first_and_apart_only_if_they_find_little() -> None:
    strict, pairs, anything = forms_for_arxiv(asked("low-rank adaptation"))
    assert strict == '(all:"low rank" AND all:adaptation)'
    assert "OR" in pairs and "OR" in anything
    assert forms_for_arxiv(asked("ti:mamba AND cat:cs.LG")) == ["(ti:mamba AND cat:cs.LG)"]
    assert forms_for_arxiv(asked("reward", sort="date")) == ["all:reward"]


def test_years_and_categories_hold_in_every_form() -> None:
    for form in forms_for_arxiv(asked(TRADING, year_from=2023, categories=("cs.LG",))):
        assert form.endswith("AND (cat:cs.LG) AND submittedDate:[202301010000 TO 299912312359]")


@given(st.text(max_size=200))
def test_every_form_is_one_that_its_source_takes(text: str) -> None:
    query = asked(text)
    if query.is_fixed or not query.terms.key:
        return
    for form in forms_for_arxiv(query)[-2:] if len(query.terms.key) > 1 else []:
        assert QUERY.parameters["search_query"](form), form
    for form in forms_for_openalex(query)[1:]:
        assert WORKS.parameters["search"](form), form
    for form in forms_for_semantic_scholar(query)[1:]:
        assert SEARCH.parameters["query"](form), form


def paper(title: str, abstract: str = "", **known: object) -> Paper:
    return Paper(keys=(f"s2:{abs(hash(title)) % 10**6}",), title=title, abstract=abstract, **known)  # type: ignore[arg-type]


def test_papers_are_ranked_by_what_they_say_and_not_by_who_cites_them() -> None:
    papers = [
        paper("A survey of all of machine learning", "Systems are applied in many fields.", citations=90_000),
        paper("Trading with agents", "Reinforcement learning trades in financial markets.", citations=2),
        paper("Markets", "Financial markets explained.", citations=500),
    ]  # fmt: skip
    scores = [one.score for one in answers(TRADING, papers)]
    assert scores[1] > scores[2] > scores[0]


def test_it_is_said_which_terms_stand_where() -> None:
    (how,) = answers(TRADING, [paper("Trading with agents", "Reinforcement learning in financial markets.")])
    assert how.why == "title: trading; abstract: reinforcement, learning, financial, markets"


def test_words_are_compared_by_their_stem_and_numbers_whole() -> None:
    near, far = answers("optimizers for 1.7B models", [paper("An optimizer", "A 1.7B model."), paper("The 7B", "1.")])
    assert near.why == "title: optimizers; abstract: 1.7b, models" and far.why == ""


def test_a_paper_that_is_asked_for_by_its_title_comes_first() -> None:
    title = "Attention is all you need"
    papers = [
        paper("Attention attention attention", "All you need is attention."),
        paper(title, "We propose a model."),
    ]
    scores = [one.score for one in answers(title, papers)]
    assert scores[1] > scores[0]


@given(st.text(max_size=80), st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60)), max_size=6))
def test_any_text_can_be_ranked_by_any_question(text: str, documents: list[tuple[str, str]]) -> None:
    found = answers(text, [paper(title, abstract) for title, abstract in documents])
    assert len(found) == len(documents) == len(closeness(text, documents))


async def test_a_question_finds_papers_that_hold_only_some_of_its_words(papers: PaperService, world: World) -> None:
    question = "Which methods adapt quantised small language models on a budget, and how well do they reason?"
    result = await papers.search(query=question, sources=["arxiv", "openalex"])
    assert result.status == "ok" and len(result.items) == 10
    assert "quantised" in result.items[0].title.lower() and "quantised" in result.items[0].why
    first = world.api.seen[0].query["search_query"]
    assert " OR " in first and "methods" not in first
