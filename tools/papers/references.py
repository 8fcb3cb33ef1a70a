"""Entries of a bibliography: what they say in print, and the ids inside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

from mlintern.tools.papers.document import Reference
from mlintern.tools.papers.ids import try_parse_id

_ARXIV = re.compile(
    r"(?:arxiv[:.\s]*(?:preprint\s*)?(?:arxiv[:\s]*)?|corr,?\s*(?:vol\.?\s*)?abs/|abs/|arxiv\.org/(?:abs|pdf|html)/)"
    r"(\d{4}\.\d{4,5}|[a-z-]+(?:\.[a-z]{2})?/\d{7})",
    re.IGNORECASE,
)
_DOI = re.compile(r"\b(10\.\d{4,9}/[^\s\"<>\]]+)")
_YEAR = re.compile(r"(?<![\d.:/-])(19[5-9]\d|20[0-4]\d)[a-z]?\b(?!\.\d)")
_ENDING_YEAR = re.compile(r"[\s,.;:]*\(?\b(?:19[5-9]\d|20[0-4]\d)[a-z]?\)?[\s.,]*$")
_LINK = re.compile(r"(?:https?://|www\.)\S+")
_PAGES = re.compile(r"\b(?:pp?\.|pages?)\s*\d+(?:\s*[-–—]+\s*\d+)?|\b\d+\s*[-–—]+\s*\d+\b", re.IGNORECASE)
_LOOKED_AT = re.compile(r"\(?(?:accessed|retrieved|visited)\b[^.)]*[.)]?", re.IGNORECASE)


def reference_from_blocks(
    key: str, blocks: Sequence[str], *, links: Sequence[str] = (), title: str = "", label: str = ""
) -> Reference:
    """An entry printed as ``blocks``: authors, title, then where and when, as bibliography styles set them apart.

    With fewer than three blocks the title is not told apart by the style and is guessed from the sentences.
    """
    text = " ".join(blocks)
    joined = f"{text} {' '.join(map(unquote, links))}"
    authors = ""
    if not title and len(blocks) >= 3:
        authors, title = blocks[0], blocks[1]
    elif not title:
        authors, title = _guess(text)
    elif blocks:
        authors = blocks[0]
    arxiv, doi = find_ids(joined)
    outside = [link for link in links if link.startswith(("http://", "https://"))]
    return Reference(
        key=key,
        text=text,
        title=_trim(title),
        authors=_names(authors),
        year=_year(text, title=title, label=label),
        arxiv=arxiv,
        doi=doi,
        url=outside[0] if outside else "",
    )


def _year(text: str, *, title: str, label: str) -> int | None:
    """The year of publication: of the label ("Shao et al. (2024a)"), else the last one that is not part of a title,
    of page numbers, of an id, of an address or of the day on which a page was looked at."""
    named = _YEAR.findall(label)
    if named:
        return int(named[-1])
    bare = text.replace(title, " ") if title and not _ENDING_YEAR.search(title) else text
    for other in (_LINK, _ARXIV, _DOI, _PAGES, _LOOKED_AT):
        bare = other.sub(" ", bare)
    years = re.findall(r"\((19[5-9]\d|20[0-4]\d)[a-z]?\)", bare) or _YEAR.findall(bare)
    return int(years[-1]) if years else None


def find_ids(text: str) -> tuple[str, str]:
    """The arXiv id and the DOI in ``text``, each empty if there is none; an arXiv DOI is an arXiv id."""
    arxiv = ""
    if found := _ARXIV.search(text):
        name = try_parse_id(found.group(1))
        arxiv = name.value if name else ""
    for candidate in _DOI.findall(text):
        name = try_parse_id(candidate)
        if name is None:
            continue
        if name.kind == "doi":
            return arxiv, name.value
        arxiv = arxiv or name.value
    return arxiv, ""


def _guess(text: str) -> tuple[str, str]:
    """Authors and title of an entry in one piece: quoted, or the longest of the first sentences after the names."""
    quoted = re.search(r"[“\"]([^”\"]{8,})[”\"]", text)
    if quoted:
        return text[: quoted.start()], quoted.group(1)
    after_year = re.match(r"(.{3,400}?)\(?\b(?:19|20)\d\d[a-z]?\)?\.\s+(.+?)(?:\.\s|$)", text)
    if after_year:
        return after_year.group(1), after_year.group(2)
    # A sentence ends at a period that does not follow an initial ("R. Rafailov").
    sentences = re.split(r"(?<![A-Z])(?<!\bet al)\.\s+", text)
    if len(sentences) >= 2:
        return sentences[0], sentences[1]
    return "", text


def _names(text: str) -> tuple[str, ...]:
    bare = re.sub(r"\(?\b(?:19|20)\d\d[a-z]?\)?", "", text)
    parts = re.split(r"\s*(?:,\s*and\s+|\band\s+|&|;)\s*|,\s+(?=\S+\s+\S|[A-Z]\.\s*\S)", bare)
    named = (part.strip(" .,:") for part in parts)
    return tuple(name for name in named if re.search(r"[^\W\d]", name) and name not in ("others", "et al"))[:30]


def _trim(title: str) -> str:
    """A title without the year and the marks that a style puts behind it; a title that is a year stays."""
    whole = " ".join(title.split()).strip(" .,;:\"“”'")
    # "Evaluation campaign 2016" keeps its year: a style sets one apart by a comma, a period or brackets.
    bare = re.sub(r"(?:[,.;:]\s*|\s*\()(?:19[5-9]\d|20[0-4]\d)[a-z]?\)?$", "", whole).strip(" .,;:") or whole
    return bare if len(bare) <= 300 else bare[:300].rsplit(" ", 1)[0]
