"""A made-up literature that the stand-ins of the paper services share: papers with ids, years and citations."""

from __future__ import annotations

import functools
import hashlib
import random
from dataclasses import dataclass, field

from tests.services.boolean import plain

_SUBJECTS = (
    "preference",
    "reward",
    "low-rank",
    "curriculum",
    "distillation",
    "quantised",
    "instruction",
    "contrastive",
)
_THINGS = ("optimization", "modelling", "adaptation", "tuning", "alignment", "decoding", "pretraining", "evaluation")
_SCOPES = (
    "of small language models",
    "for reasoning",
    "without labels",
    "at scale",
    "from human feedback",
    "on a budget",
)
_FAMILIES = ("Ahn", "Berger", "Chen", "Diaz", "Eriksen", "Farouk", "Gupta", "Haddad")


@dataclass(frozen=True)
class Entry:
    """One paper of the made-up literature."""

    number: int
    arxiv: str
    title: str
    authors: tuple[str, ...]
    year: int
    citations: int
    abstract: str
    doi: str = ""
    category: str = "cs.CL"
    references: tuple[int, ...] = ()

    @functools.cached_property
    def fields(self) -> dict[str, str]:
        """Its texts by arXiv's names of fields, as `boolean.matches` compares them."""
        title, abstract = plain(self.title), plain(self.abstract)
        names = plain(" ".join(self.authors))
        return {"ti": title, "abs": abstract, "au": names, "all": f"{title} | {abstract} | {names}"}

    @property
    def corpus_id(self) -> int:
        return 900_000 + self.number

    @property
    def sha(self) -> str:
        return hashlib.sha1(str(self.number).encode()).hexdigest()

    @property
    def work(self) -> str:
        return f"W{4_000_000_000 + self.number}"

    @property
    def published(self) -> str:
        return f"{self.year}-{1 + self.number % 12:02d}-{1 + self.number % 28:02d}"


@dataclass(frozen=True)
class Corpus:
    """``size`` papers; paper 0 cites ``fan_out`` others, each of which cites ``fan_out`` more."""

    size: int = 60
    fan_out: int = 8
    entries: tuple[Entry, ...] = field(init=False)

    def __post_init__(self) -> None:
        rng = random.Random(self.size)
        entries = []
        for number in range(self.size):
            words = (_SUBJECTS[number % 8], _THINGS[(number // 8) % 8], _SCOPES[(number // 64) % 6])
            title = f"{' '.join(words).capitalize()}: study {number}"
            below = [1 + (number * self.fan_out + place) % max(1, self.size - 1) for place in range(self.fan_out)]
            entries.append(
                Entry(
                    number=number,
                    arxiv=f"{2301 + number % 12}.{10_000 + number}",
                    title=title,
                    authors=(f"Ada {_FAMILIES[number % 8]}", f"Bo {_FAMILIES[(number + 3) % 8]}"),
                    year=2017 + number % 9,
                    citations=int(10 ** rng.uniform(0, 4)),
                    abstract=f"We study {' '.join(words)} and report what we found in study {number}.",
                    doi=f"10.1234/study.{number}" if number % 4 == 0 else "",
                    category="cs.LG" if number % 3 == 0 else "cs.CL",
                    references=tuple(sorted({one for one in below if one != number and one < self.size})),
                )
            )
        object.__setattr__(self, "entries", tuple(entries))

    def named(self, name: str) -> Entry | None:
        """The paper that Semantic Scholar's or OpenAlex's spelling of an id names."""
        lowered = name.lower()
        for entry in self.entries:
            names = {
                f"arxiv:{entry.arxiv}",
                f"corpusid:{entry.corpus_id}",
                entry.sha,
                entry.work.lower(),
                f"doi:10.48550/arxiv.{entry.arxiv}",
                f"doi:{entry.doi}" if entry.doi else "",
            }
            if lowered in names:
                return entry
        return None

    def matching(self, words: str) -> list[Entry]:
        """Papers whose title or abstract hold all of ``words``, most cited first."""
        wanted = words.lower().replace("-", " ").split()
        texts = {entry.number: f"{entry.title} {entry.abstract}".lower().replace("-", " ") for entry in self.entries}
        found = [entry for entry in self.entries if all(word in texts[entry.number] for word in wanted)]
        return sorted(found, key=lambda entry: -entry.citations)

    def relevant(self, words: str) -> list[Entry]:
        """What a relevance search that wants every word gives."""
        return self.matching(words)

    def ranked(self, words: str) -> list[Entry]:
        """All papers in the order of a search engine: those with most of the words first, then the most cited."""
        wanted = set(plain(words).split()) - {"all", "ti", "abs", "au", "and", "or", "andnot", "not"}
        return sorted(
            self.entries,
            key=lambda one: (-len(wanted & set(one.fields["all"].split())), -one.citations),
        )

    def citing(self, number: int) -> list[Entry]:
        return [entry for entry in self.entries if number in entry.references]
