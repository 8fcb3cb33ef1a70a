"""A paper as the sources tell of it, and when two of them are the same one."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from mlintern.tools.papers.ids import PaperId, strongest

SHORTEST_TITLE = 20
"""Characters of a title key below which it names nothing: "Introduction", "Index" and "Conclusion" never merge."""

MOST_YEARS_APART = 2
"""Between a preprint and its paper in print: reviewing takes a year, printing another."""
_GREEK_WORD = re.compile(
    r"(?<![a-zA-Z])(?:var)?(alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho"
    r"|sigma|tau|upsilon|phi|chi|psi|omega)(?![a-zA-Z])",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?[a-zA-Z][\w:-]*(?:\s+[\w:-]+=\"[^\"<>]*\")*\s*/?>|</?[a-zA-Z][^<>]{0,40}>")
_LATIN = str.maketrans({"\u00f8": "o", "\u0142": "l", "\u0111": "d", "\u00df": "ss", "\u00e6": "ae", "\u0153": "oe"})


@dataclass(frozen=True)
class Paper:
    """What is known about one paper. None and empty mean unknown, never zero.

    Attributes:
        keys: all its canonical keys, strongest first; empty for a reference that has only a title.
        published: ISO date, or just the year.
        found_in: the sources that told of it.
        code: address of its repository, and ``project`` of its page, as Hugging Face Papers knows them; so are
            ``upvotes`` and how many ``models`` and ``datasets`` on the Hub mention it.
        why: which terms of a question it holds, and where.
        score: by which it is ordered where it came from (fused rank, or closeness in a walk).
    """

    keys: tuple[str, ...]
    title: str
    authors: tuple[str, ...] = ()
    year: int | None = None
    published: str = ""
    abstract: str = ""
    citations: int | None = None
    influential_citations: int | None = None
    venue: str = ""
    categories: tuple[str, ...] = ()
    url: str = ""
    pdf_url: str = ""
    found_in: tuple[str, ...] = ()
    passages: tuple[Passage, ...] = ()
    score: float = 0.0
    why: str = ""
    code: str = ""
    project: str = ""
    upvotes: int | None = None
    models: int | None = None
    datasets: int | None = None

    @property
    def key(self) -> str:
        """The key that it is known by; for one without an id, made from its title."""
        return strongest(self.keys) if self.keys else f"title:{title_key(self.title)[:80]}"

    @property
    def arxiv_id(self) -> str | None:
        return next((key.removeprefix("arxiv:") for key in self.keys if key.startswith("arxiv:")), None)


@dataclass(frozen=True)
class Passage:
    """A piece of a paper's text that answers a query."""

    text: str
    section: str = ""
    score: float = 0.0


def title_key(title: str) -> str:
    """``title`` without case, accents, punctuation, spaces, markup and LaTeX: equal for two spellings of one title.

    Greek letters are left out, for one source writes ``$\\alpha$`` where another writes the letter.
    """
    bare = _TAG.sub("", html.unescape(title)).replace("++", "plusplus")  # C++ is not C
    bare = re.sub(r"\\ell(?![a-zA-Z])", "l", bare)
    bare = re.sub(r"\\[a-zA-Z]+\*?|[{}$\\^_]|[\u0370-\u03ff\u1f00-\u1fff]", "", bare)
    decomposed = unicodedata.normalize("NFKD", bare).lower()
    kept = (
        letter for letter in decomposed if not unicodedata.combining(letter) and not "\u0370" <= letter <= "\u03ff"
    )
    return re.sub(r"[\W_]+", "", "".join(kept))


def same_authors(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two lists of authors, both known, are of one paper.

    The first authors are one person, however the parts of the name are ordered or shortened ("Rafailov, R.", "Rafael
    Rafailov", "Rafailov Rafael"), or at least half of the shorter list of several is in the other.
    """
    mine, theirs = [_name_parts(name) for name in one], [_name_parts(name) for name in other]
    if not mine or not theirs:
        return False
    if _same_person(mine[0], theirs[0]):
        return True
    shorter, longer = sorted((mine, theirs), key=len)
    shared = sum(any(_same_person(name, another) for another in longer) for name in shorter)
    return len(shorter) > 1 and 2 * shared >= len(shorter)


def _name_parts(author: str) -> list[str]:
    """The parts of a name without accents; "Mueller" and "M\u00fcller" are one."""
    parts = (title_key(part.lower().translate(_LATIN)) for part in re.split(r"[\s,.-]+", author))
    return [re.sub(r"(?<=[aou])e", "", part) for part in parts if part]


def _same_person(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two names share a whole part, and each other part is in the other name, if only as an initial.

    What is left may be written in one ("Jian-Feng", "Jianfeng") or as initials in one ("JF").
    """
    shorter, longer = sorted((list(one), list(other)), key=len)
    whole = [part for part in shorter if len(part) > 1 and part in longer]
    if not whole:
        return False
    left = [part for part in longer if part not in whole]
    rest = [part for part in shorter if part not in whole]
    if left and rest and "".join(rest) in ("".join(left), "".join(part[0] for part in left)):
        return True
    return not left or all(any(own[0] == part[0] and 1 in (len(own), len(part)) for part in left) for own in rest)


def same_titles(one: str, other: str) -> bool:
    """Whether two titles are one: long enough to name a paper, equal, and with no other Greek letters in them.

    A source that leaves out mathematics leaves out the letter; one that has another letter has another paper.
    """
    key, letters, others = _bare_key(one), _letters(one), _letters(other)
    return len(key) >= SHORTEST_TITLE and key == _bare_key(other) and (not letters or not others or letters == others)


def near_years(one: int | None, other: int | None) -> bool:
    """Whether two years of publication, as far as they are known, can be of one paper."""
    return one is None or other is None or abs(one - other) <= MOST_YEARS_APART


def _bare_key(title: str) -> str:
    """`title_key` without Greek letters that are written as words ("beta-VAE")."""
    return title_key(_GREEK_WORD.sub(" ", title))


def _letters(title: str) -> list[str]:
    """Greek letters in order, by name, however they are written."""
    spelled = "".join(
        f" {unicodedata.name(letter).split()[-1].replace('LAMDA', 'LAMBDA')} "
        if "\u0370" <= letter <= "\u03ff"
        else letter
        for letter in unicodedata.normalize("NFKD", html.unescape(title))
        if unicodedata.name(letter, "")
    )
    return [name.lower() for name in _GREEK_WORD.findall(spelled)]


def same_by_title(one: Paper, other: Paper) -> bool:
    """Whether two papers are one by a long title, their authors and years that are near or unknown."""
    return (
        same_titles(one.title, other.title)
        and near_years(one.year, other.year)
        and same_authors(one.authors, other.authors)
        and not clash(one.keys, other.keys)
    )


def clash(one: Iterable[str], other: Iterable[str]) -> bool:
    """Whether two sets of ids cannot be of one paper: two arXiv ids, two DOIs or two CorpusIds.

    Two works in OpenAlex are no clash: it keeps a preprint and the published paper apart.
    """
    mine, theirs = list(one), list(other)
    for kind in (r"arxiv:", r"doi:", r"s2:\d{1,12}$"):
        own, others = ({key for key in keys if re.match(kind, key)} for keys in (mine, theirs))
        if own and others and not own & others:
            return True
    return False


def group(papers: Sequence[Paper]) -> list[list[int]]:
    """Which of ``papers`` are the same one: a partition of their indices, each part and the whole in input order.

    Two are one if they share an arXiv id, a DOI, a Semantic Scholar or OpenAlex id, or by `same_by_title`. A part
    never holds two different arXiv ids or two different DOIs: a source that attaches a wrong id, or a thesis that
    repeats a title, cannot join them. Which papers end up together does not depend on the order of the input.
    """
    parts = _Parts(papers)
    ranked = sorted(
        range(len(papers)), key=lambda index: (papers[index].key, papers[index].title, repr(papers[index]))
    )
    by_key: dict[str, list[int]] = {}
    by_title: dict[str, list[int]] = {}
    for index in ranked:
        for key in papers[index].keys:
            by_key.setdefault(key, []).append(index)
        by_title.setdefault(_bare_key(papers[index].title), []).append(index)
    for key in sorted(by_key, key=lambda key: (key[:2] != "ar", key)):
        for first, second in _pairs(by_key[key]):
            parts.join(first, second)
    for key in sorted(key for key in by_title if len(key) >= SHORTEST_TITLE):
        for first, second in _pairs(by_title[key]):
            if same_by_title(papers[first], papers[second]) and not parts.clash(first, second):
                parts.join(first, second)
    return parts.listed()


def merge(papers: Iterable[Paper]) -> Paper:
    """One paper out of several records of it: every key and source kept, gaps of the first filled by the others."""
    listed = list(papers)
    first = listed[0]
    keys = tuple(dict.fromkeys(key for paper in listed for key in paper.keys))
    ordered = (strongest(keys), *(key for key in keys if key != strongest(keys))) if keys else ()
    counts = [paper.citations for paper in listed if paper.citations is not None]
    influential = [paper.influential_citations for paper in listed if paper.influential_citations is not None]
    return replace(
        first,
        keys=ordered,
        title=next((paper.title for paper in listed if paper.title), ""),
        authors=max((paper.authors for paper in listed), key=len),
        year=next((paper.year for paper in listed if paper.year is not None), None),
        published=max((paper.published for paper in listed), key=len),
        abstract=next((paper.abstract for paper in listed if paper.abstract), ""),
        citations=max(counts, default=None),
        influential_citations=max(influential, default=None),
        venue=next((paper.venue for paper in listed if paper.venue), ""),
        categories=next((paper.categories for paper in listed if paper.categories), ()),
        url=first.url or next((paper.url for paper in listed if paper.url), ""),
        pdf_url=next((paper.pdf_url for paper in listed if paper.pdf_url), ""),
        code=next((paper.code for paper in listed if paper.code), ""),
        project=next((paper.project for paper in listed if paper.project), ""),
        upvotes=next((paper.upvotes for paper in listed if paper.upvotes is not None), None),
        models=next((paper.models for paper in listed if paper.models is not None), None),
        datasets=next((paper.datasets for paper in listed if paper.datasets is not None), None),
        found_in=tuple(dict.fromkeys(source for paper in listed for source in paper.found_in)),
        passages=tuple(dict.fromkeys(passage for paper in listed for passage in paper.passages)),
        score=sum(paper.score for paper in listed),
    )


def page_of(keys: Sequence[str]) -> str:
    """The web page of the paper with ``keys``; empty if it has none."""
    if not keys:
        return ""
    kind, _, value = strongest(tuple(keys)).partition(":")
    return PaperId(kind, value).url  # type: ignore[arg-type]


@dataclass
class _Parts:
    """Disjoint sets of indices that refuse to hold two arXiv ids or two DOIs."""

    papers: Sequence[Paper]
    leader: list[int] = field(init=False)
    names: list[frozenset[str]] = field(init=False)
    keys: list[frozenset[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.leader = list(range(len(self.papers)))
        self.keys = [frozenset(paper.keys) for paper in self.papers]
        self.names = [
            frozenset(key for key in paper.keys if key.startswith(("arxiv:", "doi:"))) for paper in self.papers
        ]

    def find(self, index: int) -> int:
        while self.leader[index] != index:
            self.leader[index] = self.leader[self.leader[index]]
            index = self.leader[index]
        return index

    def clash(self, first: int, second: int) -> bool:
        """Whether the ids of the parts of two papers speak against joining them by title."""
        one, other = self.find(first), self.find(second)
        return one != other and clash(self.keys[one], self.keys[other])

    def join(self, first: int, second: int) -> None:
        one, other = self.find(first), self.find(second)
        ids = self.names[one] | self.names[other]
        kinds = [key.partition(":")[0] for key in ids]
        if one == other or (
            len(set(kinds)) < len(kinds) and not ids <= max(self.names[one], self.names[other], key=len)
        ):
            return
        low, high = sorted((one, other))
        self.leader[high] = low
        self.names[low] = ids
        self.keys[low] |= self.keys[high]

    def listed(self) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        for index in range(len(self.papers)):
            found.setdefault(self.find(index), []).append(index)
        return list(found.values())


def _pairs(indices: Sequence[int]) -> list[tuple[int, int]]:
    return [(one, other) for place, one in enumerate(indices) for other in indices[place + 1 :]]
