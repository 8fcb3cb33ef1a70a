"""Reading LaTeXML: `data/paper.html` is what LaTeXML 0.8.7 makes of `data/paper.tex`."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.errors import BadInput
from mlintern.tools.papers.document import Block, Document, Section, page
from mlintern.tools.papers.reader import is_paper, read_latexml
from tests.services.arxiv import STUB
from tests.tools.papers.conftest import DATA

PAGE = (DATA / "paper.html").read_bytes()


@pytest.fixture(scope="module")
def paper() -> Document:
    return read_latexml(PAGE, source="arxiv_html")


def text_of(paper: Document, wanted: str) -> str:
    section, block = paper.locate(wanted)
    return section.text if block is None else block.text


def test_title_authors_and_abstract_stand_apart(paper: Document) -> None:
    assert paper.title == "Small Steps: Tuning Tiny Models"
    assert paper.authors == ("Ada Example", "Ben Sample")
    assert paper.abstract == (
        "We tune models with $n<10^{6}$ parameters and ask what helps. Careful data helps most."
    )


def test_the_outline_has_every_level_with_its_id_and_number(paper: Document) -> None:
    outline = [(one.id, one.number, one.title, one.level) for one in paper.sections]
    assert outline == [
        ("front", "", "Front matter", 1),
        ("S1", "1", "Introduction", 1),
        ("S2", "2", "Method", 1),
        ("S2.SS1", "2.1", "Objective", 2),
        ("S2.SS1.SSS1", "2.1.1", "Details", 3),
        ("S2.SS1.SSS1.Px1", "", "Optimizer", 4),
        ("S2.SS1.SSS1.Px2", "", "Schedule", 4),
        ("S2.SS2", "2.2", "Data", 2),
        ("S3", "3", "Results", 1),
        ("S4", "4", "Data", 1),
        ("A1", "A", "Hyperparameters", 1),
        ("bib", "", "References", 1),
    ]


def test_a_section_does_not_repeat_what_is_inside_it(paper: Document) -> None:
    assert text_of(paper, "2") == "This sentence belongs to the method itself."
    whole = "\n".join(one.text for one in paper.sections)
    for sentence in ("belongs to the method itself", "The objective is", "Details are here", "We use AdamW"):
        assert whole.count(sentence) == 1


def test_a_section_can_be_read_with_all_that_is_inside_it(paper: Document) -> None:
    text = paper.with_descendants(paper.locate("2")[0])
    for inside in ("belongs to the method", "2.1 Objective", "We use a cosine schedule.", "Only clean data"):
        assert text.count(inside) == 1
    assert "Two sections" not in text


def test_mathematics_is_kept_once_as_latex(paper: Document) -> None:
    text = text_of(paper, "S2.SS1")
    assert text.count(r"\mathcal{L}(\theta)") == 1
    assert "ℒ" not in text and "%" not in text
    assert r"$$a =b+c,$$ (2)" in text
    assert r"\left(\beta\log\frac{\pi_{\theta}(y_{w}|x)}{\pi_{\mathrm{ref}}(y_{w}|x)}\right)$$ (1)" in text


def test_tables_are_rows_under_their_caption(paper: Document) -> None:
    assert text_of(paper, "S3.T1").splitlines() == [
        "Table 1: Accuracy by model, in percent.",
        "| Model | Base | Tuned |",
        "| --- | --- | --- |",
        "| Tiny | 10.0 | 32.1 |",
        r"| Small | 26.0 | $35.5\pm 2.2$ |",
    ]


def test_captions_footnotes_lists_and_code_are_kept(paper: Document) -> None:
    results, introduction = text_of(paper, "Results"), text_of(paper, "Introduction")
    assert "Figure 1: Loss over steps; lower is better." in results
    assert "def step(x):\n    return x + 1" in results
    assert "[footnote: It has $x^{2}$ inside and cites Old (1999 [#bib.bib2]) too.]" in introduction
    assert r"- a recipe with learning rate $\eta=5\times 10^{-7}$;" in introduction
    assert "Theorem 1.\nClean data is better than dirty data." in text_of(paper, "2.2")
    assert "Work of nobody in particular" in text_of(paper, "front")


def test_nothing_that_the_authors_wrote_is_lost(paper: Document) -> None:
    """Every word of the page's prose is in the text as often as on the page."""
    import lxml.html

    root: Any = lxml.html.document_fromstring(PAGE)
    added = ("ltx_note_mark", "ltx_tag", "ltx_listing_data", "ltx_title_abstract", "ltx_page_footer")
    for element in [*root.iter("math", "head"), *(one for name in added for one in root.find_class(name))]:
        if element.getparent() is not None:
            element.drop_tree()
    words = Counter(re.findall(r"[A-Za-z]{4,}", " ".join(root.itertext())))
    text = "\n".join([paper.title, *paper.authors, paper.abstract])
    text += "\n".join(f"\n{one.heading}\n{one.text}" for one in paper.sections)
    kept = Counter(re.findall(r"[A-Za-z]{4,}", text))
    missing = {word: count for word, count in words.items() if kept[word] < count}
    assert not missing


def test_citation_keys_resolve_to_entries_with_their_ids(paper: Document) -> None:
    entries = {entry.key: entry for entry in paper.references}
    assert "Rafailov et al. (2023 [#bib.bib4])" in text_of(paper, "1")
    assert entries["bib.bib4"].arxiv == "2305.18290"
    assert entries["bib.bib4"].title.startswith("Direct preference optimization")
    assert entries["bib.bib4"].authors == ("Rafael Rafailov", "Archit Sharma", "Eric Mitchell")
    assert entries["bib.bib3"].arxiv == "2203.02155"
    assert entries["bib.bib2"].doi == "10.1000/old.1999"
    assert [entries[f"bib.bib{number}"].year for number in (1, 2, 3, 4)] == [2017, 1999, 2022, 2023]
    assert (entries["bib.bib1"].arxiv, entries["bib.bib1"].doi) == ("", "")


def test_the_version_and_licence_come_from_what_arxiv_stamps_on_the_page() -> None:
    stamp = (
        b'<a id="license-tr" href="x">License: CC BY 4.0</a><div id="watermark-tr">arXiv:2305.18290v3 [cs.LG]</div>'
    )
    stamped = read_latexml(PAGE.replace(b"<body>", b"<body>" + stamp), source="arxiv_html")
    assert (stamped.version, stamped.license) == (3, "CC BY 4.0")
    cited = PAGE.replace(b"arXiv:2305.18290<", b"arXiv:2305.18290v7<")
    assert read_latexml(cited, source="arxiv_html").version is None, "the version of a cited paper was taken"


def test_a_stub_and_a_conversion_that_died_are_not_papers() -> None:
    assert is_paper(PAGE)
    assert not is_paper(STUB.format(name="1").encode())
    assert not is_paper(PAGE.replace(b"<body>", b"<body>Conversion to HTML had a Fatal error and exited abruptly"))


def test_a_document_nested_beyond_reason_is_read() -> None:
    deep = b"<article class='ltx_document'>" + b"<div>" * 1000 + b"bottom" + b"</div>" * 1000 + b"</article>"
    assert "bottom" in "".join(one.text for one in read_latexml(deep, source="ar5iv").sections)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("S2.SS1", "S2.SS1"), ("s2.ss1", "S2.SS1"), ("2.1", "S2.SS1"), ("Section 2.1", "S2.SS1"), ("§2.1", "S2.SS1"),
        ("Objective", "S2.SS1"), ("objec", "S2.SS1"), ("2.1 Objective", "S2.SS1"), ("Appendix A", "A1"), ("A", "A1"),
        ("references", "bib"), ("Schedule", "S2.SS1.SSS1.Px2"), ("hyper", "A1"),
    ],
)  # fmt: skip
def test_a_section_is_found_by_id_number_or_unique_title(paper: Document, wanted: str, found: str) -> None:
    section, block = paper.locate(wanted)
    assert (section.id, block) == (found, None)


def test_a_paragraph_is_found_by_its_id(paper: Document) -> None:
    section, block = paper.locate("S1.p2")
    assert section.id == "S1" and block is not None and block.text.startswith("We contribute")


def test_an_ambiguous_title_lists_the_candidates(paper: Document) -> None:
    with pytest.raises(BadInput) as refused:
        paper.locate("Data")
    assert "S2.SS2" in str(refused.value) and "S4" in str(refused.value)


def test_an_unknown_title_is_answered_with_the_nearest(paper: Document) -> None:
    with pytest.raises(BadInput) as refused:
        paper.locate("Introdction")
    assert "S1 (1 Introduction)" in str(refused.value)


def test_a_phrase_is_found_across_lines_and_hyphens_with_its_place(paper: Document) -> None:
    ((section, block, start, end),) = paper.find("the  METHOD\nitself")
    assert (section.id, block.id) == ("S2", "S2.p1")
    assert section.text[start:end] == "the method itself"


@given(st.text(alphabet="ab .\n\u00e9\U0001f600", max_size=400), st.integers(1, 90))
def test_the_pages_of_a_section_are_the_section(text: str, size: int) -> None:
    parts: list[str] = []
    offset: int | None = 0
    while offset is not None:
        part, following = page(text, offset=offset, max_chars=size)
        assert len(part) <= size and (following is None or following == offset + len(part) > offset)
        parts.append(part)
        offset = following
    assert "".join(parts) == text


def test_an_offset_outside_the_text_is_refused() -> None:
    for offset in (-1, 4):
        with pytest.raises(BadInput):
            page("abc", offset=offset, max_chars=10)


@given(st.lists(st.text(alphabet="xyz \n", min_size=1, max_size=20), min_size=1, max_size=6), st.data())
def test_a_place_that_find_gives_is_where_the_phrase_stands(texts: list[str], data: st.DataObject) -> None:
    blocks = tuple(Block(f"p{place}", text) for place, text in enumerate(texts))
    paper = Document("x", "", "", (Section("S1", "1", "T", 1, blocks),))
    phrase = data.draw(st.sampled_from(texts))
    for section, _, start, end in paper.find(phrase):
        assert section.text[start:end].split() == phrase.split()
    if phrase.split():
        assert list(paper.find(phrase))
