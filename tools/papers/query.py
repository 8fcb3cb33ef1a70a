"""What the user wants to find, and how each source wants it put."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Literal

from mlintern.tools.papers.terms import Terms, terms_of

Sort = Literal["relevance", "citations", "date"]

_ASKING = (
    r"(?:please\s+|kindly\s+)?(?:can|could|would)?\s*(?:you\s+)?(?:please\s+)?"
    r"(?:find|show|get|give|list|fetch|search(?:\s+for)?|look(?:ing)?\s+(?:for|up)|recommend|suggest|"
    r"i\s+(?:want|need|am\s+looking\s+for|would\s+like)|i'm\s+looking\s+for|what\s+are|which\s+are|are\s+there)?"
    r"\s*(?:me|us)?\s*"
)
_AMOUNT = r"(?:(?:some|any|all|the|a|an|few|more|most|top|best|good|key|main|\d+|recent|latest|new|newest|important|"
_AMOUNT += r"relevant|influential|seminal|famous|cited|most-cited|academic|scientific|research|arxiv)\s+)*"
_PAPERS = r"(?:papers?|articles?|publications?|preprints?|works?|literature|research|studies)"
_ABOUT = (
    r"(?:\s+(?:(?:that|which)\s+(?:are|is|discuss(?:es)?|deals?\s+with|studies|study|covers?|describes?|uses?|"
    r"introduces?|proposes?)|on\s+the\s+(?:topic|subject)\s+of|about|on|regarding|concerning|related\s+to|covering|"
    r"dealing\s+with|discussing|describing|for|in\s+the\s+(?:area|field)\s+of))(?:\s+about)?\s+"
)
_REQUEST = re.compile(rf"^\s*{_ASKING}{_AMOUNT}{_PAPERS}{_ABOUT}", re.IGNORECASE)
_TAIL = re.compile(rf"\s+{_PAPERS}\s*[?.!]*\s*$", re.IGNORECASE)
_BARE_ASK = re.compile(
    r"^\s*(?:please\s+)?(?:(?:can|could)\s+you\s+)?(?:find|show|give|get)\s+(?:me|us)\s+"
    r"(?:(?:something|anything)\s+(?:about|on)\s+)?",
    re.IGNORECASE,
)
_OPERATORS = re.compile(r"\b(?:AND|OR|ANDNOT|NOT)\b")
_ARXIV_FIELD = re.compile(r"\b(?:ti|au|abs|co|jr|cat|rn|id|all):", re.IGNORECASE)
_TOKEN = re.compile(r'"([^"]+)"|(\S+)')
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can do does for from how in into is it its of on or that the their this to using "
        "via was what when where which why will with without",
    )
)
ENOUGH, ENOUGH_FOR_A_QUESTION = 10, 60
"""Papers of one form of a query from which no broader form is asked; a question is answered by ranking many."""
_FEW_TERMS = 4
"""So many terms are searched for together first, whatever the sentence around them."""
_MOST_TERMS = 12
_MOST_PAIRED = 5
"""Specific terms of which two must occur: ten pairs."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """A search as the user meant it.

    Attributes:
        text: as written.
        words: without the words that ask ("papers about ..."): what a lexical source is given.
        categories: arXiv categories such as ``cs.CL``; any of them.
    """

    text: str
    words: str
    year_from: int | None = None
    year_to: int | None = None
    min_citations: int | None = None
    categories: tuple[str, ...] = ()
    sort: Sort = "relevance"

    @property
    def filters(self) -> frozenset[str]:
        """The names of the filters that are set."""
        chosen = {
            "year": self.year_from is not None or self.year_to is not None,
            "min_citations": self.min_citations is not None and self.min_citations > 0,
            "categories": bool(self.categories),
        }
        return frozenset(name for name, is_set in chosen.items() if is_set)

    @property
    def terms(self) -> Terms:
        """The terms of the question, without the fields of arXiv's language and operators."""
        return terms_of(_OPERATORS.sub(" ", _without_fields(self.words)))

    @property
    def is_question(self) -> bool:
        """Whether no paper can be expected to hold all of its words."""
        return self.terms.asks and len(self.terms.key) > _FEW_TERMS

    @property
    def enough(self) -> int:
        """Papers from which no broader form of it is asked."""
        return ENOUGH_FOR_A_QUESTION if self.is_question else ENOUGH

    @property
    def is_fixed(self) -> bool:
        """Whether it is asked as it is written: with operators, quotes or fields, or in an order of its own."""
        return self.is_boolean or bool(_ARXIV_FIELD.search(self.words)) or self.sort != "relevance"

    @property
    def is_boolean(self) -> bool:
        """Whether the user wrote operators or quotes and so means them."""
        return bool(_OPERATORS.search(self.words)) or self.words.count('"') >= 2


def without_request_words(text: str) -> str:
    """``text`` without the part that asks for papers; unchanged if nothing would be left.

    "Find me recent papers about low-rank adaptation" becomes "low-rank adaptation". Quotes and titles stay whole:
    "Papers with Code" asks for nothing.
    """
    stripped = text.strip()
    if stripped.startswith('"'):
        return stripped
    bare = _REQUEST.sub("", stripped)
    if bare == stripped:
        bare = _BARE_ASK.sub("", stripped)
    if bare != stripped or len(stripped.split()) <= 6:
        bare = _TAIL.sub("", bare)
    return bare.rstrip(" ?!").strip() or stripped


def for_arxiv(query: Query) -> str:
    """``query`` in arXiv's language: every word must occur, hyphenated words and quotes as phrases.

    Without operators arXiv reads "low rank adaptation" as "low OR rank OR adaptation", and a bare hyphen splits a
    word; a query that already speaks the language (``ti:``, ``AND``) is left as it is.
    """
    return _with_filters(_arxiv_terms(query.words) if query.words else "", query)


def forms_for_arxiv(query: Query) -> list[str]:
    """What to ask arXiv, the first that finds enough: all words, two of the specific ones, any of them.

    A question is never asked with all of its words: no paper holds them.
    """
    terms = query.terms
    if query.is_fixed or len(terms.key) < 2:
        return [for_arxiv(query)]
    named = [_all(term) for term in terms.specific[:_MOST_PAIRED]]
    pairs = [f"({one} AND {other})" for one, other in itertools.combinations(named, 2)]
    pairs += [_all(phrase) for phrase in (*terms.phrases, *terms.synonyms)][:_MOST_PAIRED]
    anything = [_all(term) for term in (*terms.synonyms, *terms.specific)][:_MOST_TERMS]
    relaxed = [_with_filters(f"({' OR '.join(part)})", query) for part in (pairs, anything)]
    return relaxed if query.is_question else [for_arxiv(query), *relaxed]


def for_semantic_scholar(query: Query) -> str:
    """``query`` as plain words: the relevance search knows no operators, and a hyphen matches nothing."""
    plain = _OPERATORS.sub(" ", re.sub(r"[\"()+|*~:]", " ", _without_fields(query.words)))
    return " ".join(re.sub(r"[-‐-―/]", " ", plain).split())


def for_semantic_scholar_bulk(query: Query) -> str:
    """``query`` in the language of the bulk search: ``+`` and, ``|`` or, ``-`` not, quotes for phrases."""
    text = re.sub(r"\s+(?:ANDNOT|AND\s+NOT|NOT)\s+", " -", _without_fields(query.words))
    text = re.sub(r"\s+OR\s+", " | ", re.sub(r"\s+AND\s+", " + ", text))
    text = re.sub(r"(?<=\w)[-‐-―/](?=\w)", " ", text)
    return " ".join(text.split())


def for_openalex(query: Query) -> str:
    """``query`` for OpenAlex, which knows AND, OR, NOT and quotes, and refuses wildcards."""
    text = re.sub(r"\bANDNOT\b", "NOT", _without_fields(query.words))
    return " ".join(re.sub(r"[?*~,|:]|(?<=\w)[-‐-―](?=\w)", " ", text).split())


def forms_for_semantic_scholar(query: Query) -> list[str]:
    """What to ask the relevance search: it wants most of the words, so long questions are asked with fewer."""
    terms = query.terms
    plain = for_semantic_scholar(query)
    if query.is_fixed or len(terms.key) < 3:
        return [plain]
    shorter = [" ".join(_in_order(terms, most)) for most in (8, 4, 2)]
    forms = shorter if query.is_question else [plain, *shorter[1:]]
    return list(dict.fromkeys(forms))


def forms_for_openalex(query: Query) -> list[str]:
    """What to ask OpenAlex, which joins plain words by AND: all words, two of the specific ones, then fewer words."""
    terms = query.terms
    plain = for_openalex(query)
    if query.is_fixed or len(terms.key) < 2:
        return [plain]
    named = terms.specific[:_MOST_PAIRED]
    pairs = " OR ".join(f"({one} AND {other})" for one, other in itertools.combinations(named, 2))
    shorter = [" ".join(_in_order(terms, most)) for most in (3, 2)]
    forms = [pairs, *shorter] if query.is_question else [plain, pairs, *shorter]
    return list(dict.fromkeys(filter(None, forms)))


def for_hugging_face(query: Query) -> str:
    """``query`` for the semantic search of Hugging Face: the sentence itself, cut to the 250 characters it takes."""
    plain = " ".join(_OPERATORS.sub(" ", _without_fields(query.text).replace('"', " ")).split())
    return plain if len(plain) <= 250 else plain[:250].rsplit(" ", 1)[0]


def _with_filters(expression: str, query: Query) -> str:
    clauses = [expression]
    if query.categories:
        # "cs" stands for all of cs.*, which arXiv takes only when it is written so; "hep-th" has nothing below it.
        names = [form for name in query.categories for form in ([name] if "." in name else [name, f"{name}.*"])]
        clauses.append("(" + " OR ".join(f"cat:{name}" for name in names) + ")")
    if "year" in query.filters:
        clauses.append(f"submittedDate:[{query.year_from or 1991}01010000 TO {query.year_to or 2999}12312359]")
    return " AND ".join(filter(None, clauses))


def _all(term: str) -> str:
    return f'all:"{term}"' if re.search(r"[^\w]", term) else f"all:{term}"


def _in_order(terms: Terms, most: int) -> list[str]:
    """The ``most`` specific key terms as they follow each other in the question."""
    chosen = set(terms.specific[:most])
    return [term for term in terms.key if term in chosen]


def _without_fields(words: str) -> str:
    """``words`` without arXiv's field names; a clause about a category goes whole, other sources have none."""
    bare = re.sub(r"(?:\s*\b(?:AND|OR|ANDNOT)\s+)?\b(?:cat|rn|id):\S+", " ", words)
    return _ARXIV_FIELD.sub("", bare).strip()


def _arxiv_terms(words: str) -> str:
    if _ARXIV_FIELD.search(words) or (_OPERATORS.search(words) and '"' not in words and "(" in words):
        return f"({words})"
    parts: list[str] = []
    joint = ""
    for phrase, word in _TOKEN.findall(words):
        if word in ("AND", "OR", "NOT", "ANDNOT"):
            joint = "ANDNOT" if word.endswith("NOT") else word
            continue
        text = " ".join(re.findall(r"\w+", phrase or word))
        if not text or (not phrase and text.lower() in _STOP_WORDS):
            continue
        term = f'all:"{text}"' if " " in text else f"all:{text}"
        parts += [joint or "AND", term] if parts else [term]
        joint = ""
        if len(parts) >= 2 * _MOST_TERMS - 1:
            break
    return f"({' '.join(parts)})" if len(parts) > 1 else "".join(parts)
