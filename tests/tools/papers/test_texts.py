"""Where a paper's text comes from, and what is said about where it did not come from."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.papers.other_formats import read_latex, read_markdown
from mlintern.tools.papers.pdf import read_pdf
from mlintern.tools.papers.service import PaperService
from mlintern.tools.papers.text_sources import unpack_source
from tests.services import standin
from tests.tools.papers.conftest import DATA, World

pytestmark = pytest.mark.anyio

PAPER = "2301.10000"
MARKDOWN = """# Study 0

## Abstract
We study.

## 1 Introduction
Hello.

```python
# not a heading
```

### 1.1 Background
Old news.

## 2 Method
Steps.
"""
TEX = {
    "main.tex": r"""\documentclass{article} % a comment
\title{Study \emph{zero}\thanks{nobody}}
\begin{document}\maketitle
\begin{abstract}We study 100\% of it.\end{abstract}
\section{Introduction}\label{a} As shown by \citep[see][p.~3]{doe2020,roe2021}. % secret
\input{method}
\end{document}""",
    "method.tex": "\\section*{Method}\n\\subsection{Loss $\\mathcal{L}_{x}$}\nWe minimise it.\n",
    "main.bbl": r"""\begin{thebibliography}{2}
\bibitem[Doe et~al.(2020)Doe, {Van Roe}, and Moe]{doe2020}
Jane Doe and Al {Van Roe}. \newblock A long title of a paper. \newblock \emph{arXiv:2001.00001}, 2020.
\bibitem{roe2021}
R.~Roe. \newblock Another long title here. \newblock \url{https://doi.org/10.1000/xyz}, 2021.
\end{thebibliography}""",
}


def tarred(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            data = text.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def pdf(*texts: str) -> bytes:
    """A PDF, written by hand, with a page for each of ``texts`` and a line for each of their lines."""
    kids = " ".join(f"{3 + 2 * number} 0 R" for number in range(len(texts)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(texts)} >>".encode(),
    ]
    for number, text in enumerate(texts):
        lines = " ".join(f"({line}) Tj 0 -14 Td" for line in text.splitlines())
        stream = f"BT /F1 12 Tf 72 720 Td {lines} ET".encode()
        objects += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R " % (4 + 2 * number)
            + b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
            b"<< /Length %d >>\nstream\n" % len(stream) + stream + b"\nendstream",
        ]
    body, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n" % number + content + b"\nendobj\n"
    start, size = len(body), len(objects) + 1
    body += b"xref\n0 %d\n0000000000 65535 f \n" % size
    body += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return bytes(body + b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (size, start))


async def source_of(papers: PaperService, paper_id: str = PAPER) -> tuple[str | None, list[tuple[str, str]]]:
    result = await papers.read(paper_id=paper_id)
    return result.text_source, [(report.name, report.status) for report in result.sources]


async def test_the_best_source_wins_and_each_one_before_it_is_accounted_for(
    papers: PaperService, world: World
) -> None:
    missing = [(name, "not_found") for name in ("arxiv_html", "ar5iv", "hf_markdown", "latex", "pdf")]
    assert await source_of(papers, "2302.10001") == ("abstract", [*missing, ("abstract", "ok")])
    world.site.pdfs["2303.10002"] = pdf("Hello from a PDF")
    assert await source_of(papers, "2303.10002") == ("pdf", [*missing[:4], ("pdf", "ok")])
    world.site.sources["2304.10003"] = tarred(TEX)
    assert await source_of(papers, "2304.10003") == ("latex", [*missing[:3], ("latex", "ok")])
    world.hugging_face.markdown["2305.10004"] = MARKDOWN * 4
    assert await source_of(papers, "2305.10004") == ("hf_markdown", [*missing[:2], ("hf_markdown", "ok")])
    world.ar5iv.pages["2306.10005"] = (DATA / "paper.html").read_text()
    assert await source_of(papers, "2306.10005") == ("ar5iv", [*missing[:1], ("ar5iv", "ok")])
    world.site.has_html.add(0)
    assert await source_of(papers) == ("arxiv_html", [("arxiv_html", "ok")])


async def test_a_source_that_fails_gives_way_and_is_named(papers: PaperService, world: World) -> None:
    world.site.fail_always(standin.too_many(600), path="html")
    world.ar5iv.pages[PAPER] = (DATA / "paper.html").read_text()
    result = await papers.read(paper_id=PAPER)
    assert (result.status, result.text_source) == ("ok", "ar5iv")
    assert result.sources[0].status == "rate_limited" and result.sources[0].retry_after_seconds == 600
    assert any("arxiv_html (rate_limited)" in note for note in result.notes)


async def test_with_everything_rate_limited_the_answer_says_so_and_when_to_come_back(
    papers: PaperService, world: World
) -> None:
    for service in world.services:
        service.fail_always(standin.too_many(300))
    result = await papers.read(paper_id=PAPER)
    assert (result.status, result.text_source, result.outline) == ("rate_limited", None, [])
    assert "says nothing about the paper" in result.notes[0] and "300 s" in result.notes[0]


async def test_a_paper_that_nobody_has_is_not_found_rather_than_failed(papers: PaperService) -> None:
    result = await papers.read(paper_id="2399.99999")
    assert result.status == "not_found"
    assert "search_papers" in result.notes[0]


async def test_a_robot_page_is_blocked_and_not_a_text(papers: PaperService, world: World) -> None:
    world.site.fail_always(standin.CAPTCHA, path="html")
    result = await papers.read(paper_id=PAPER)
    assert (result.sources[0].name, result.sources[0].status) == ("arxiv_html", "blocked")
    assert (result.text_source, result.status) == ("abstract", "partial")


async def test_another_version_is_never_put_in_place_of_the_one_asked_for(papers: PaperService, world: World) -> None:
    world.ar5iv.pages[PAPER] = (DATA / "paper.html").read_text()
    world.site.pages[f"{PAPER}v1"] = (DATA / "paper.html").read_text()
    first = await papers.read(paper_id=f"{PAPER}v1")
    assert (first.text_source, first.version) == ("arxiv_html", 1)
    fourth = await papers.read(paper_id=f"{PAPER}v4")
    assert not world.ar5iv.seen and not world.hugging_face.seen
    assert [report.name for report in fourth.sources] == ["arxiv_html", "latex", "pdf", "abstract"]


async def test_paging_through_sections_asks_nobody_twice(papers: PaperService, world: World) -> None:
    world.site.pages[PAPER] = (DATA / "paper.html").read_text()
    outline = (await papers.read(paper_id=PAPER)).outline
    asked = sum(len(service.seen) for service in world.services)
    for entry in outline:
        parts: list[str] = []
        offset: int | None = 0
        while offset is not None:
            result = await papers.read(paper_id=PAPER, section=entry.id, offset=offset, max_chars=200)
            parts.append(result.text)
            offset = result.next_offset
        assert len("".join(parts)) == entry.chars == result.total_chars
    assert sum(len(service.seen) for service in world.services) == asked


async def test_reading_shows_only_the_references_that_the_text_cites(papers: PaperService, world: World) -> None:
    world.site.pages[PAPER] = (DATA / "paper.html").read_text()
    result = await papers.read(paper_id=PAPER, section="1")
    assert [work.key for work in result.references] == ["bib.bib1", "bib.bib2", "bib.bib3", "bib.bib4"]
    assert result.references[3].paper_id == "arxiv:2305.18290"
    assert (await papers.read(paper_id=PAPER, section="4")).references == []
    assert result.next_section == "S2"


async def test_find_says_where_a_phrase_stands_and_reading_goes_on_there(papers: PaperService, world: World) -> None:
    world.site.pages[PAPER] = (DATA / "paper.html").read_text()
    result = await papers.read(paper_id=PAPER, find="CLEAN data is")
    (match, other) = result.matches
    assert (match.section, match.paragraph, result.matches_total) == ("S2.SS2", "S2.SS2.p1", 2)
    there = await papers.read(paper_id=PAPER, section=match.section, offset=match.offset, max_chars=200)
    assert there.text.startswith("clean data is used")
    nothing = await papers.read(paper_id=PAPER, find="unicorns")
    assert nothing.matches == [] and nothing.matches_total == 0 and "does not stand" in nothing.notes[-1]
    assert other.paragraph == "Thmtheorem1"


async def test_a_section_of_a_paper_that_is_only_an_abstract_is_refused_with_the_reason(papers: PaperService) -> None:
    with pytest.raises(BadInput):
        await papers.read(paper_id="2302.10001", section="3")
    abstract = await papers.read(paper_id="2302.10001", section="abstract")
    assert abstract.text.startswith("We study")


async def test_a_doi_is_read_as_its_arxiv_twin(papers: PaperService, world: World) -> None:
    world.site.has_html.add(4)
    result = await papers.read(paper_id="https://doi.org/10.1234/STUDY.4")
    assert (result.paper_id, result.text_source) == ("arxiv:2305.10004", "arxiv_html")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/x.pdf", "http://169.254.169.254/latest.pdf", "file:///etc/passwd"]
)
async def test_an_open_pdf_inside_the_network_is_not_fetched(papers: PaperService, world: World, url: str) -> None:
    world.semantic_scholar.altered[4] = {"externalIds": {"DOI": "10.1234/study.4"}, "openAccessPdf": {"url": url}}
    result = await papers.read(paper_id="10.1234/study.4")
    assert result.text_source == "abstract"
    assert result.sources[-1].name == "pdf" and result.sources[-1].status in ("blocked", "error")


def test_markdown_headings_become_sections_and_code_does_not() -> None:
    paper = read_markdown(MARKDOWN)
    assert (paper.title, paper.abstract) == ("Study 0", "We study.")
    assert [(one.id, one.number, one.title, one.level, one.parent) for one in paper.sections] == [
        ("S1", "", "Abstract", 1, ""),
        ("S2", "1", "Introduction", 1, ""),
        ("S2.1", "1.1", "Background", 2, "S2"),
        ("S3", "2", "Method", 1, ""),
    ]
    assert "# not a heading" in paper.locate("1")[0].text


def test_latex_is_joined_from_its_files_with_its_bibliography() -> None:
    paper = read_latex(unpack_source(tarred(TEX)))
    assert paper.title == r"Study \emph{zero}"
    assert paper.abstract == r"We study 100\% of it."
    assert [(one.title, one.level) for one in paper.sections] == [
        ("Introduction", 1), ("Method", 1), (r"Loss $\mathcal{L}_{x}$", 2), ("References", 1),
    ]  # fmt: skip
    introduction = paper.sections[0].text
    assert "[#doe2020] [#roe2021]" in introduction and "secret" not in introduction
    entries = {entry.key: entry for entry in paper.references}
    assert (entries["doe2020"].arxiv, entries["doe2020"].title) == ("2001.00001", "A long title of a paper")
    assert (entries["roe2021"].doi, entries["roe2021"].year) == ("10.1000/xyz", 2021)


def test_latex_says_what_its_author_meant_it_to_say() -> None:
    """What its commands stand for, without what it comments out, with numbers as LaTeX prints them."""
    source = r"""\documentclass{article}
\newcommand{\lrval}{1\mathrm{e}{-5}}
\newcommand{\model}[1]{\textsc{#1}-7B}
\def\name{Foo\xspace}
\begin{abstract}An early abstract of \name. See \url{https://x.org/a%20b} % gone
\end{abstract}
\author{Ada Lovelace\thanks{x@y.z} \and Alan Turing\footnotemark[1] \\ University}
\begin{document}
\iffalse secret \ifx a \fi more \fi
\begin{comment}
hidden
\end{comment}
\section{Intro} The rate is $\lrval$ for \model{Bar}, 100\% of it.
\input{sec/a}
\subsection*{Plain}\subsection{Numbered}
\appendix
\section{App}\subsection{Sub}
\begin{table}\caption{Rates}\begin{tabular}{l|cc}\toprule
\multirow{2}{*}{Model} & \multicolumn{2}{c}{Loss} \\ & SFT & DPO \\ \midrule
\multirow{2}{*}{A} & 1 & $2.5$ \\ & 3 & 4 \\ \bottomrule\end{tabular}\end{table}
\end{document} after
"""
    paper = read_latex({"main.tex": source, "sec/a.tex": "From another file."})
    assert paper.authors == ("Ada Lovelace", "Alan Turing")
    assert paper.abstract == r"An early abstract of Foo. See \url{https://x.org/a%20b}"
    outline = [(one.number, one.title) for one in paper.sections]
    assert outline == [("1", "Intro"), ("", "Plain"), ("1.1", "Numbered"), ("A", "App"), ("A.1", "Sub")]
    text = "\n".join(one.text for one in paper.sections)
    assert r"The rate is $1\mathrm{e}{-5}$ for \textsc{Bar}-7B, 100\% of it." in text
    assert "From another file." in text
    assert not any(word in text for word in ("secret", "more", "hidden", "gone", "after"))
    one = paper.float_named("Table 1")
    assert one is not None and one.caption == "Rates"
    assert one.tables[0].records() == [
        {"Model": "A", "Loss SFT": "1", "Loss DPO": "2.5"},
        {"Model": "A", "Loss SFT": "3", "Loss DPO": "4"},
    ]


def test_a_pdf_has_sections_joined_words_and_references() -> None:
    lines = [
        "A Study of Rates", "Ada Lovelace", "Abstract", "We study the rates of learn-",
        "ing in every small model that we have.", "1 Introduction", "Reinforcement learning is old.", "2 Method",
        "We use a rate of 1e-5.", "2.1 Data", "GSM8K and others.", "References",
        "[1] R. Rafailov. Direct preference optimization. arXiv:2305.18290, 2023.",
        "[2] J. Doe. A title of something. In ICML, 2021.",
    ]  # fmt: skip
    paper = read_pdf(pdf("\n".join(lines)))
    assert [(one.number, one.title, one.level) for one in paper.sections][1:] == [
        ("", "Abstract", 1), ("1", "Introduction", 1), ("2", "Method", 1), ("2.1", "Data", 2), ("", "References", 1),
    ]  # fmt: skip
    assert paper.abstract == "We study the rates of learning in every small model that we have."
    assert list(paper.find("rates of learning in every"))
    assert [(one.title, one.year, one.arxiv) for one in paper.references] == [
        ("Direct preference optimization", 2023, "2305.18290"), ("A title of something", 2021, ""),
    ]  # fmt: skip


PAGES = (
    "A Study of Rates\nAda Lovelace\nAbstract\nWe study rates.\n1 Introduction\nReinforcement learning is old.",
    "2 Method\nWe train every small model with a learn-",
    "ing rate of 1e-5 on mathematics.\n3 Results\nThe second model is better than the first one by far.",
)


def test_what_stands_in_a_pdf_is_told_with_its_page_also_where_a_word_goes_over_two() -> None:
    paper = read_pdf(pdf(*PAGES))
    pages = {one.title: [block.page for block in one.blocks] for one in paper.sections}
    assert pages["Introduction"] == [1] and pages["Method"] == [2] and pages["Results"] == [3]
    assert paper.locate("2")[0].text == "We train every small model with a learning rate of 1e-5 on mathematics."


async def test_passages_and_places_of_a_pdf_have_page_numbers(papers: PaperService, world: World) -> None:
    world.site.pdfs["2301.10000"] = pdf(*PAGES)
    result = await papers.ask(question="learning rate of small models", paper_ids=["2301.10000"])
    assert (result.passages[0].heading, result.passages[0].page) == ("2 Method", 2)
    found = await papers.read(paper_id="2301.10000", find="better than the first")
    assert [one.page for one in found.matches] == [3]
    assert (await papers.read(paper_id="2301.10000", section="Results")).page == 3


async def test_the_title_of_a_pdf_comes_from_arxiv_and_its_references_are_given(
    papers: PaperService, world: World
) -> None:
    text = "1 Introduction\nOld.\n2 Method\nNew.\nReferences\n[1] J. Doe. A title of something. In ICML, 2021."
    world.site.pdfs[PAPER] = pdf(text)
    result = await papers.read(paper_id=PAPER, section="references")
    assert (result.text_source, result.title) == ("pdf", world.corpus.entries[0].title)
    assert result.authors == list(world.corpus.entries[0].authors)
    assert [(one.key, one.title) for one in result.references] == [("bib.bib1", "A title of something")]


async def test_a_conversion_that_lost_the_text_gives_way_to_the_next_source(
    papers: PaperService, world: World
) -> None:
    world.site.pages[PAPER] = (
        '<html><body><article class="ltx_document"><h1 class="ltx_title_document">T</h1></article></body></html>'
    )
    world.ar5iv.pages[PAPER] = (DATA / "paper.html").read_text()
    result = await papers.read(paper_id=PAPER)
    assert (result.text_source, result.sources[0].status) == ("ar5iv", "not_found")


async def test_another_version_than_the_one_asked_for_is_not_read_instead(papers: PaperService, world: World) -> None:
    stamp = f'<div id="watermark-tr">arXiv:{PAPER}v3 [cs.LG]</div>'
    world.site.pages[f"{PAPER}v1"] = (DATA / "paper.html").read_text().replace("<body>", f"<body>{stamp}")
    world.site.sources[f"{PAPER}v1"] = tarred(TEX)
    result = await papers.read(paper_id=f"{PAPER}v1")
    assert (result.text_source, result.version) == ("latex", 1)
    assert "has version 3" in result.sources[0].message


def test_a_source_may_be_one_gzipped_file_or_a_pdf_or_nothing() -> None:
    alone = gzip.compress(TEX["main.tex"].encode())
    assert read_latex(unpack_source(alone)).sections[0].title == "Introduction"
    for useless in (b"%PDF-1.5 ...", gzip.compress(b"just words"), tarred({"readme.tex": "nothing"})):
        with pytest.raises(NotFound):
            unpack_source(useless)


def test_a_source_that_is_a_bomb_is_cut_off() -> None:
    bomb = gzip.compress(b"\\begin{document}" + b"0" * (80 << 20), compresslevel=9)
    (text,) = unpack_source(bomb).values()
    assert len(text) <= 60 << 20


def test_inputs_that_include_each_other_end() -> None:
    files = {"main.tex": "\\begin{document}\\input{a}x\\end{document}", "a.tex": "\\input{b}", "b.tex": "\\input{a}"}
    assert read_latex(files).sections[0].text == "x"


@pytest.mark.parametrize(
    ("preamble", "body", "expected"),
    [
        (r"\providecommand{\lr}{1e-5}\renewcommand{\lr}{2e-5}", r"rate \lr.", "rate 2e-5."),
        (r"\newcommand{\lr}{1e-5}\providecommand{\lr}{9}", r"rate \lr.", "rate 1e-5."),
        (r"\newcommand{\lr}{1e-5}", r"first \lr, \renewcommand{\lr}{3e-6}then \lr.", "first 1e-5, then 3e-6."),
        (r"\newcommand{\w}{d}", r"$\w_1$ and $\w^2$", "$d_1$ and $d^2$"),
        (r"\newcommand{\best}[1]{<#1>}", r"\best{}, \best{7}", "<>, <7>"),
        (r"\newif\ifdraft\draftfalse", r"shown\ifdraft, hidden\fi.", "shown."),
        (r"\newif\iflong\longtrue", r"\iflong long\else short\fi.", "long."),
        ("", r"\lstinline|a%b| and \lstinline{50%} stay", r"\lstinline|a%b| and \lstinline{50%} stay"),
    ],
)  # fmt: skip
def test_latex_is_read_with_the_values_that_hold_there(preamble: str, body: str, expected: str) -> None:
    source = f"\\documentclass{{article}}{preamble}\\begin{{document}}\\section{{S}}{body}\\end{{document}}"
    (section,) = read_latex({"main.tex": source}).sections
    assert section.text == expected
