"""What each source is asked, from what the user wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.papers import query as q
from mlintern.tools.papers.query import Query, without_request_words


def asked(text: str, **filters: object) -> Query:
    return Query(text=text, words=without_request_words(text), **filters)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("papers about direct preference optimization", "direct preference optimization"),
        ("Find me recent papers on low-rank adaptation", "low-rank adaptation"),
        ("can you show me some papers that discuss reward hacking in RLHF?", "reward hacking in RLHF"),
        ("what are the best papers for small language model fine-tuning", "small language model fine-tuning"),
        ("I'm looking for work on curriculum learning", "curriculum learning"),
        ("Find me something about GRPO", "GRPO"),
        ("DPO papers", "DPO"),
        ("Papers with Code", "Papers with Code"),
        ("Attention is all you need", "Attention is all you need"),
        ("A survey of large language models", "A survey of large language models"),
        ('"papers about papers"', '"papers about papers"'),
        ("papers", "papers"),
    ],
)
def test_words_that_ask_for_papers_are_not_searched_for(sentence: str, words: str) -> None:
    assert without_request_words(sentence) == words


@given(st.text(max_size=200))
def test_a_query_never_becomes_empty(text: str) -> None:
    assert bool(without_request_words(text)) == bool(text.strip())


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("direct preference optimization", "(all:direct AND all:preference AND all:optimization)"),
        ("low-rank adaptation", '(all:"low rank" AND all:adaptation)'),
        ('"chain of thought" faithfulness', '(all:"chain of thought" AND all:faithfulness)'),
        ("RLHF OR DPO", "(all:RLHF OR all:DPO)"),
        ("mamba NOT snake", "(all:mamba ANDNOT all:snake)"),
        ("ti:mamba AND cat:cs.LG", "(ti:mamba AND cat:cs.LG)"),
        ("DPO", "all:DPO"),
    ],
)
def test_arxiv_is_asked_in_its_own_language(text: str, expression: str) -> None:
    assert q.for_arxiv(asked(text)) == expression


def test_arxiv_applies_years_and_categories_itself() -> None:
    expression = q.for_arxiv(asked("DPO", year_from=2023, year_to=2024, categories=("cs.CL", "cs.LG")))
    assert expression == ("all:DPO AND (cat:cs.CL OR cat:cs.LG) AND submittedDate:[202301010000 TO 202412312359]")


def test_a_hyphen_that_matches_nothing_at_semantic_scholar_becomes_a_space() -> None:
    assert q.for_semantic_scholar(asked("low-rank pre-training")) == "low rank pre training"


def test_operators_are_spelled_as_each_source_wants_them() -> None:
    query = asked('"chain of thought" AND faithfulness NOT math')
    assert query.is_boolean
    assert q.for_semantic_scholar_bulk(query) == '"chain of thought" + faithfulness -math'
    assert q.for_openalex(query) == '"chain of thought" AND faithfulness NOT math'
    assert q.for_hugging_face(query) == "chain of thought faithfulness math"
    assert q.for_semantic_scholar(query) == "chain of thought faithfulness math"


def test_fields_of_arxiv_do_not_leak_into_other_sources() -> None:
    query = asked("ti:mamba AND cat:cs.LG")
    for spelled in (q.for_semantic_scholar(query), q.for_openalex(query), q.for_hugging_face(query)):
        assert spelled == "mamba"


def test_wildcards_that_openalex_refuses_are_left_out() -> None:
    assert q.for_openalex(asked("what? learn*")) == "what learn"


@given(st.text(max_size=600))
def test_hugging_face_is_never_asked_more_than_it_takes(text: str) -> None:
    assert len(q.for_hugging_face(asked(text))) <= 250
