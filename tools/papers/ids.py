"""What names a paper: every form that people paste, brought to one.

The canonical key is, in this order of strength, ``arxiv:2305.18290`` (bare, without version), ``doi:10.1000/xyz``
(lower case), ``s2:215416146`` (Semantic Scholar's CorpusId, or its paperId of 40 hexadecimal digits) and
``openalex:W2741809807``. A version is kept apart: it matters for reading, not for identity.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from mlintern.common.text import cut
from mlintern.tools.errors import BadInput

Kind = Literal["arxiv", "doi", "s2", "openalex"]
STRENGTH: dict[str, int] = {"arxiv": 0, "doi": 1, "s2": 2, "openalex": 3}

_NEW_ARXIV = re.compile(r"(\d{4}\.\d{4,5})(?:v(\d+))?", re.IGNORECASE)
_OLD_ARXIV = re.compile(r"([a-z]+(?:-[a-z]+)*)(?:\.[a-z]{2}(?:-[a-z]+)?)?/(\d{7})(?:v(\d+))?", re.IGNORECASE)
_DOI = re.compile(r"10\.\d{4,9}/\S+")
_ARXIV_DOI = re.compile(r"10\.48550/arxiv\.(.+)", re.IGNORECASE)
_HEX = re.compile(r"[0-9a-f]{40}", re.IGNORECASE)
_WORK = re.compile(r"W\d{3,}", re.IGNORECASE)
_CORPUS = re.compile(r"(?:s2:)?(?:corpus[ _-]?id[: ]\s*)(\d{1,12})|s2:(\d{1,12})", re.IGNORECASE)
_LABEL = re.compile(r"^(arxiv|doi|s2|openalex)\s*[:\s]\s*", re.IGNORECASE)
_MARKDOWN_LINK = re.compile(r"\[[^\]]*\]\((\S+?)\)$")
_HOSTS_OF_ARXIV_IDS = ("arxiv.org", "ar5iv.org", "alphaxiv.org", "huggingface.co", "hf.co", "arxiv-vanity.com")


@dataclass(frozen=True, order=True)
class PaperId:
    """One name of one paper.

    Attributes:
        kind: who gave the name.
        value: the name in its canonical spelling.
        version: the arXiv version that was asked for, if any; no part of the identity (`key`).
    """

    kind: Kind
    value: str
    version: int | None = None

    @property
    def key(self) -> str:
        """The canonical key, such as ``arxiv:2305.18290``."""
        return f"{self.kind}:{self.value}"

    @property
    def url(self) -> str:
        """Where a person reads about it."""
        if self.kind == "arxiv":
            return f"https://arxiv.org/abs/{self.versioned}"
        if self.kind == "doi":
            return f"https://doi.org/{self.value}"
        if self.kind == "openalex":
            return f"https://openalex.org/{self.value}"
        path = self.value if len(self.value) == 40 else f"CorpusID:{self.value}"
        return f"https://www.semanticscholar.org/paper/{path}"

    @property
    def versioned(self) -> str:
        """``value`` with ``vN`` where a version was asked for."""
        return self.value if self.version is None else f"{self.value}v{self.version}"

    def __str__(self) -> str:
        return self.key if self.version is None else f"{self.key}v{self.version}"


def parse_id(text: str) -> PaperId:
    """The paper that ``text`` names: an id with or without its label, a URL, a DOI.

    Raises:
        BadInput: it names none.
    """
    found = try_parse_id(text)
    if found is None:
        shown = cut(text, 80)
        raise BadInput(
            f"{shown!r} is not the id of a paper.",
            next_step="Give an arXiv id (2305.18290), a DOI, a Semantic Scholar or OpenAlex id, or a URL of one of "
            "them. To find a paper by its title, use search_papers.",
        )
    return found


def try_parse_id(text: str) -> PaperId | None:
    """`parse_id`, or None where that raises."""
    wrapped = _MARKDOWN_LINK.search(text.strip())
    cleaned = _unwrapped(wrapped.group(1) if wrapped else text)
    if not cleaned or len(cleaned) > 500:
        return None
    return _from_url(cleaned) or _from_text(cleaned)


def strongest(keys: list[str] | tuple[str, ...]) -> str:
    """The canonical one of several keys of the same paper."""
    return min(keys, key=lambda key: (STRENGTH.get(key.partition(":")[0], 9), len(key), key))


def _unwrapped(text: str) -> str:
    """``text`` without the punctuation and brackets that a sentence puts around an id."""
    pairs = ("<>", "()", "[]", "{}", '""', "''", "``")
    cleaned = text.strip().rstrip(".,;")
    while len(cleaned) > 1 and cleaned[0] + cleaned[-1] in pairs:
        cleaned = cleaned[1:-1].strip().rstrip(".,;")
    return cleaned


def _from_url(text: str) -> PaperId | None:
    if "://" not in text:
        if not re.match(r"(?:www\.)?[a-z0-9.-]+\.[a-z]{2,}/", text, re.IGNORECASE) or _OLD_ARXIV.fullmatch(text):
            return None
        text = f"https://{text}"
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    host = (parts.hostname or "").removeprefix("www.")
    path = unquote(parts.path).strip("/")
    if host.endswith("doi.org"):
        return _from_text(path)
    if host.endswith("semanticscholar.org"):
        last = path.rsplit("/", 1)[-1]
        return _from_text(last if _HEX.fullmatch(last) else last.replace("CorpusID:", "CorpusId:"))
    if host.endswith("openalex.org"):
        return _from_text(path.rsplit("/", 1)[-1])
    if any(host == known or host.endswith(f".{known}") for known in _HOSTS_OF_ARXIV_IDS):
        tail = re.sub(r"^(?:abs|pdf|html|src|e-print|format|ps|papers|overview)/", "", path)
        tail = re.sub(r"\.(?:pdf|md|ps|gz)$", "", tail, flags=re.IGNORECASE)
        return _arxiv(tail) or _arxiv(tail.split("/", 1)[0])
    embedded = _DOI.search(path)  # a publisher's page: https://dl.acm.org/doi/10.1145/...
    return _doi(embedded.group(0)) if embedded else None


def _from_text(text: str) -> PaperId | None:
    label = _LABEL.match(text)
    kind, rest = (label.group(1).lower(), text[label.end() :]) if label else ("", text)
    corpus = _CORPUS.fullmatch(text)
    if corpus:
        return PaperId("s2", str(int(corpus.group(1) or corpus.group(2))))
    if kind in ("", "arxiv"):
        tail = re.sub(r"\.pdf$", "", rest, flags=re.IGNORECASE)
        tail = re.sub(r"\s*\[[\w.-]+\]$", "", tail)  # "arXiv:2305.18290 [cs.LG]", as stamped on the page
        if found := _arxiv(tail):
            return found
    if kind in ("", "doi") and _DOI.fullmatch(rest):
        return _doi(rest)
    if kind in ("", "s2") and _HEX.fullmatch(rest):
        return PaperId("s2", rest.lower())
    if kind in ("", "openalex") and _WORK.fullmatch(rest):
        return PaperId("openalex", rest.upper())
    return None


def _arxiv(text: str) -> PaperId | None:
    new = _NEW_ARXIV.fullmatch(text)
    if new and (len(new.group(1)) == 10 or new.group(1) < "1501"):  # five digits since January 2015
        return PaperId("arxiv", new.group(1), int(new.group(2)) if new.group(2) else None)
    if old := _OLD_ARXIV.fullmatch(text):
        # The subject class ("cs.CL/0701001") is decoration: arXiv itself answers with "cs/0701001".
        return PaperId("arxiv", f"{old.group(1).lower()}/{old.group(2)}", int(old.group(3)) if old.group(3) else None)
    return None


def _doi(text: str) -> PaperId | None:
    cleaned = text.rstrip(".,;")
    if cleaned.endswith(")") and cleaned.count("(") < cleaned.count(")"):
        cleaned = cleaned[:-1]
    if inside := _ARXIV_DOI.fullmatch(cleaned):
        return _arxiv(inside.group(1))
    return PaperId("doi", cleaned.lower())
