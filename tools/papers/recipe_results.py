"""A recipe with what the Hub knows, and a paper as BibTeX, as `read_paper` gives them back."""

from __future__ import annotations

from mlintern.tools.papers.bibtex import bibtex
from mlintern.tools.papers.paper_results import Link, ReadResult, Recipe
from mlintern.tools.papers.reading import cited_work, read_document
from mlintern.tools.papers.recipe import kind_of
from mlintern.tools.papers.sources.hf_papers import Detail
from mlintern.tools.papers.text_sources import Text

_MOST_LINKED = 10


def add_detail(recipe: Recipe, detail: Detail, *, hub: str) -> None:
    """Add what Hugging Face Papers knows; addresses that the paper gives itself stay as they are."""
    recipe.upvotes, recipe.summary = detail.upvotes, detail.summary
    known = {link.url.rstrip("/") for link in recipe.links}
    pages = [(url, kind) for url, kind in ((detail.code, "code"), (detail.project, "project")) if url]
    recipe.links += [
        Link(url=url, kind=kind_of(url) if kind == "code" else kind, source="hf_papers")
        for url, kind in pages
        if url.rstrip("/") not in known
    ]
    for kind, prefix, linked in (
        ("model", "", detail.models),
        ("dataset", "datasets/", detail.datasets),
        ("space", "spaces/", detail.spaces),
    ):
        recipe.links += [
            Link(url=f"{hub}/{prefix}{one.id}", kind=kind, source="hub", downloads=one.downloads)
            for one in sorted(linked, key=lambda one: -one.downloads)[:_MOST_LINKED]
            if f"{hub}/{prefix}{one.id}" not in known
        ]


def as_references(text: Text, *, offset: int, max_chars: int) -> ReadResult:
    """The bibliography entry by entry; ``offset`` counts entries."""
    result = read_document(text, section=None, offset=0, max_chars=200, find=None, subsections=False)
    result.outline, result.abstract = [], ""
    if text.document is None:
        return result
    left = max_chars
    for place, entry in enumerate(text.document.references[offset:], offset):
        work = cited_work(entry)
        left -= len(work.text)
        if left < 0 and result.references:
            result.next_offset = place
            break
        result.references.append(work)
    result.section, result.offset = "bib", offset
    return result


def as_bibtex(text: Text, *, references: bool) -> ReadResult:
    """The paper as a BibTeX entry in ``text``, or with ``references`` the entries of its bibliography."""
    result = read_document(text, section=None, offset=0, max_chars=200, find=None, subsections=False)
    result.outline = []
    document = text.document
    if document is None:
        return result
    taken: set[str] = set()
    if references:
        entries = [
            bibtex(
                title=one.title or one.text,
                authors=one.authors,
                year=one.year,
                arxiv=one.arxiv,
                doi=one.doi,
                url=one.url,
                taken=taken,
            )
            for one in document.references
        ]
    else:
        name = text.name
        arxiv = name.value if name.kind == "arxiv" else ""
        year = 2000 + int(arxiv[:2]) if arxiv[:4].isdigit() else None
        entries = [
            bibtex(
                title=document.title,
                authors=document.authors,
                year=year,
                arxiv=arxiv,
                doi=name.value if name.kind == "doi" else "",
                url=name.url,
            )
        ]
    result.text = "\n\n".join(entries)
    result.total_chars = len(result.text)
    return result
