"""When two records are one paper."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.papers.ids import parse_id
from mlintern.tools.papers.paper import Paper, group, merge, same_by_title, title_key

LONG = "Direct preference optimization for language models"


def paper(*keys: str, title: str = LONG, year: int | None = 2023, author: str = "Rafael Rafailov") -> Paper:
    return Paper(keys=keys, title=title, year=year, authors=(author,) if author else ())


def parts(*papers: Paper) -> set[frozenset[int]]:
    return {frozenset(indices) for indices in group(papers)}


def test_a_title_is_the_same_in_another_spelling() -> None:
    assert title_key("Na\u00efve {B}ayes: \\emph{a} low-rank $\\alpha$ study") == title_key(
        "naive bayes - A Low Rank \u03b1 study".replace("\u03b1", "")
    )


def test_records_that_share_any_id_are_one_even_by_way_of_a_third() -> None:
    one, two = paper("arxiv:2305.18290", title="A"), paper("doi:10.1/x", title="B")
    bridge = paper("s2:1", "arxiv:2305.18290", "doi:10.1/x", title="C")
    assert parts(one, two, bridge) == {frozenset({0, 1, 2})}


def test_twins_without_a_common_id_are_one_by_title_year_and_author() -> None:
    assert parts(paper("arxiv:2305.18290"), paper("doi:10.1/x", year=2024, author="Rafailov, R.")) == {
        frozenset({0, 1})
    }


@pytest.mark.parametrize(
    "other",
    [
        paper("doi:10.1/x", year=2026),
        paper("doi:10.1/x", author="Ann Other"),
        paper("doi:10.1/x", author=""),
        paper("doi:10.1/x", title=LONG + " revisited"),
        paper("arxiv:2401.00001"),
    ],
)
def test_a_title_alone_makes_no_twin(other: Paper) -> None:
    assert len(parts(paper("arxiv:2305.18290"), other)) == 2


@pytest.mark.parametrize(
    "other",
    [
        paper("doi:10.1/x", year=None),
        paper("doi:10.1/x", author="Rafailov Rafael"),
        paper("doi:10.1/x", author="R. Rafailov"),
        paper("doi:10.1/x", title="Direct <i>Preference</i> Optimization $\\pi$ for Language Models"),
        paper("doi:10.1/x", title="Direct preference optimization \u03c0 for language models"),
        paper("openalex:W1"),
    ],
    ids=["unknown year", "swapped name", "initial", "mathematics as LaTeX", "mathematics as a letter", "OpenAlex"],
)
def test_a_twin_in_another_spelling_is_one(other: Paper) -> None:
    first = paper("arxiv:2305.18290", title="Direct preference optimization $\\pi$ for language models")
    named = other if "$" in other.title or "\u03c0" in other.title else dataclasses.replace(other, title=first.title)
    assert len(parts(first, named)) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (paper("doi:10.1/a"), paper("doi:10.1/b")),
        (paper("doi:10.1/a", "openalex:W1"), paper("doi:10.1/b", "openalex:W1")),
        (paper("arxiv:2305.18290", "doi:10.1/a"), paper("doi:10.1/b")),
        (paper("s2:5"), paper("s2:6")),
        (paper("doi:10.1/a", author="Wei Zhang"), paper("arxiv:1", author="Wei Wang")),
    ],
    ids=["two DOIs", "two DOIs at one work", "a preprint with another DOI", "two CorpusIds", "another Wei"],
)
def test_papers_whose_ids_or_authors_clash_are_two(one: Paper, other: Paper) -> None:
    assert len(parts(one, other)) == 2


L2 = "Learning with $L_2$ regularization of networks"
BETA = "$\\beta$-VAE: learning basic visual concepts"
MATHML = (
    '<mml:math xmlns:mml="http://www.w3.org/1998/Math/MathML" display="inline"><mml:msub><mml:mi>L</mml:mi>'
    "<mml:mn>2</mml:mn></mml:msub></mml:math>"
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (paper("arxiv:1", author="Zhang Wei"), paper("doi:10.1/x", author="Wei Zhang")),
        (paper("arxiv:1", author="Li, Jian-Feng"), paper("doi:10.1/x", author="Jianfeng Li")),
        (paper("arxiv:1", author="J.-F. Li"), paper("doi:10.1/x", author="Jianfeng Li")),
        (paper("arxiv:1", author="JF Li"), paper("doi:10.1/x", author="Jian Feng Li")),
        (paper("arxiv:1", author="Jürgen Müller"), paper("doi:10.1/x", author="Juergen Mueller")),
        (paper("arxiv:1", author="Søren Ødegård"), paper("doi:10.1/x", author="Soren Odegard")),
        (paper("arxiv:1", author="Laurens van der Maaten"), paper("doi:10.1/x", author="L. van der Maaten")),
        (paper("arxiv:1", author="Christopher D. Manning"), paper("doi:10.1/x", author="Christopher Manning")),
        (paper("arxiv:1", year=None), paper("doi:10.1/x", year=None)),
        (paper("arxiv:1", year=2021), paper("doi:10.1/x", year=2023)),
        (paper("arxiv:1", title=L2), paper("doi:10.1/x", title=L2.replace("$L_2$", "L<sub>2</sub>"))),
        (paper("arxiv:1", title=L2), paper("doi:10.1/x", title=L2.replace("$L_2$", "L\u2082"))),
        (paper("arxiv:1", title=L2), paper("doi:10.1/x", title=L2.replace("$L_2$", MATHML))),
        (paper("arxiv:1", title=BETA), paper("doi:10.1/x", title=BETA.replace("$\\beta$", "Beta"))),
        (paper("arxiv:1", title=BETA), paper("doi:10.1/x", title=BETA.replace("$\\beta$", "\u03b2"))),
        (paper(parse_id("2305.18290v1").key, title="A"), paper(parse_id("arXiv:2305.18290v3").key, title="B")),
        (paper(parse_id("10.48550/arXiv.2305.18290").key, title="A"), paper("arxiv:2305.18290", title="B")),
        (paper(parse_id("10.1000/AbC").key, title="A"), paper("doi:10.1000/abc", title="B")),
        (paper("arxiv:1", "s2:5", title="A"), paper("arxiv:1", "s2:6", title="B")),
    ],
)
def test_records_of_one_paper_are_one(one: Paper, other: Paper) -> None:
    assert len(parts(one, other)) == len(parts(other, one)) == 1


@pytest.mark.parametrize(
    "records",
    [
        (paper("arxiv:1", author="Wei Zhang"), paper("doi:10.1/x", author="Wen Zhang")),
        (paper("arxiv:1", author="Mueller, Jan"), paper("doi:10.1/x", author="Miller, Jan")),
        (paper("arxiv:1", title=BETA), paper("doi:10.1/x", title=BETA.replace("beta", "alpha"))),
        (paper("arxiv:1", title=BETA), paper("doi:10.1/x", title=BETA.replace("$\\beta$", "\u03b1"))),
        (paper("arxiv:1", title="A study of models in C++"), paper("doi:10.1/x", title="A study of models in C")),
        (paper("arxiv:1", title=LONG + " Part I"), paper("doi:10.1/x", title=LONG + " Part II")),
        (paper("arxiv:1", title=LONG + ": your model is a reward model"), paper("doi:10.1/x")),
        (paper("s2:5"), paper("openalex:W1"), paper("s2:6")),
        (paper("doi:10.1/a"), paper("openalex:W1"), paper("doi:10.1/b")),
    ],
)
def test_records_of_two_papers_stay_two_in_any_order(records: tuple[Paper, ...]) -> None:
    for order in itertools.permutations(records):
        assert len(parts(*order)) == 2


def test_authors_in_another_order_are_the_same_authors() -> None:
    first = dataclasses.replace(paper("arxiv:1"), authors=("Ann Lee", "Bo Chen", "Cy Diaz"))
    second = dataclasses.replace(paper("doi:10.1/x"), authors=("Bo Chen", "A. Lee", "Cy Diaz"))
    assert len(parts(first, second)) == 1


@pytest.mark.parametrize("title", ["Introduction", "Index", "Bibliography", "Conclusion", "Editorial"])
def test_titles_that_name_nothing_never_merge(title: str) -> None:
    assert len(parts(paper("doi:10.1/x", title=title), paper("doi:10.1/y", title=title))) == 2


def test_a_wrong_id_cannot_join_two_arxiv_papers() -> None:
    wrong = paper("openalex:W1", "doi:10.1/x")
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        records = [paper("arxiv:1", "doi:10.1/x", title="A"), wrong, paper("arxiv:2", "openalex:W1", title="B")]
        found = group([records[place] for place in order])
        for indices in found:
            ids = {key for index in indices for key in records[order[index]].keys if key.startswith("arxiv:")}
            assert len(ids) <= 1


def test_merging_keeps_every_name_and_source_and_fills_gaps() -> None:
    first = Paper(keys=("s2:5",), title="", found_in=("a",), score=0.1)
    second = Paper(keys=("arxiv:1", "s2:5"), title="T", citations=3, year=2020, found_in=("b",), score=0.2)
    united = merge([first, second])
    assert united.keys == ("arxiv:1", "s2:5")
    assert (united.title, united.citations, united.year, united.found_in) == ("T", 3, 2020, ("a", "b"))
    assert united.score == pytest.approx(0.3)


names = st.sampled_from(["arxiv:1", "arxiv:2", "arxiv:3", "doi:a", "doi:b", "s2:1", "s2:2", "openalex:W1"])
records = st.builds(
    Paper,
    keys=st.lists(names, max_size=3, unique=True)
    .filter(lambda keys: sum(key.startswith("arxiv:") for key in keys) <= 1)
    .map(tuple),
    title=st.sampled_from([LONG, LONG.upper(), "Introduction", "Another title that is long enough to count"]),
    year=st.sampled_from([None, 2020, 2021, 2022]),
    authors=st.sampled_from([(), ("Ann One",), ("Two, B.",)]),
)


@given(st.lists(records, max_size=8))
def test_papers_are_parted_and_no_part_holds_two_arxiv_ids(papers: list[Paper]) -> None:
    found = group(papers)
    assert sorted(index for indices in found for index in indices) == list(range(len(papers)))
    for indices in found:
        assert len({key for index in indices for key in papers[index].keys if key.startswith("arxiv:")}) <= 1


@given(st.lists(records, max_size=7), st.randoms(use_true_random=False))
def test_who_is_one_with_whom_does_not_depend_on_the_order(papers: list[Paper], rng: object) -> None:
    shuffled = list(papers)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]

    def shapes(listed: list[Paper]) -> list[list[str]]:
        return sorted(sorted(repr(listed[index]) for index in indices) for indices in group(listed))

    assert shapes(papers) == shapes(shuffled)


@given(records, records)
def test_being_the_same_is_mutual(one: Paper, other: Paper) -> None:
    assert same_by_title(one, other) == same_by_title(other, one)
    assert (len(group([one, other])) == 1) == (len(group([other, one])) == 1)


def test_real_references_hold_titles_that_must_not_merge(recorded: Path) -> None:
    """`semantic-scholar/test_get_paper_references.yaml`: 67 references, 23 of them without an id."""
    import yaml  # type: ignore[import-untyped]

    cassette = yaml.safe_load((recorded / "semantic-scholar" / "test_get_paper_references.yaml").read_text())
    from mlintern.tools.papers.sources.semantic_scholar import paper_of

    cited = [
        paper_of(item["citedPaper"])
        for interaction in cassette["interactions"]
        for item in json.loads(interaction["response"]["body"]["string"])["data"]
    ]
    assert len(cited) == 67
    assert sum(not one.keys for one in cited) == 23
    assert all(one.title for one in cited)
    assert len(group(cited)) == 67


def test_a_letter_of_mathematics_is_the_same_as_a_command_and_as_a_sign() -> None:
    assert title_key(r"Learning $\ell_2$ norms in deep networks") == title_key(
        "Learning \u21132 norms in deep networks"
    )
