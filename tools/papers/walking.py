"""The state of a citation walk: papers met, citations seen, what is still to ask. Pure data, kept as JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mlintern.common.text import cut
from mlintern.tools.papers.paper import SHORTEST_TITLE, Paper, clash, merge, same_authors, same_by_title, title_key
from mlintern.tools.papers.ranking import closeness
from mlintern.tools.papers.search import paper_from
from mlintern.tools.service_status import SourceReport

Direction = Literal["references", "citations", "both", "similar"]
CONTEXTS_KEPT = 2
_CONTEXT_CHARS = 300
_INTENT_WEIGHT = {"methodology": 1.0, "result": 0.5}
_YEARS_OF_RECENCY = 5.0


@dataclass(frozen=True)
class WalkRequest:
    """What was asked for; see `PaperService.walk`. ``seed`` is a canonical key."""

    seed: str
    direction: Direction
    depth: int
    query: str = ""
    min_citations: int | None = None
    year_from: int | None = None
    influential_only: bool = False

    @property
    def directions(self) -> tuple[str, ...]:
        return ("references", "citations") if self.direction == "both" else (self.direction,)


@dataclass
class Node:
    """A paper met on the way. ``intents`` and ``influential`` are those of the citations that led to it."""

    paper: Paper
    depth: int
    influential: bool = False
    intents: tuple[str, ...] = ()
    looked_up: bool = False


@dataclass
class Link:
    """A citation between two nodes, by their names in the walk."""

    citing: str
    cited: str
    influential: bool | None
    intents: tuple[str, ...]
    contexts: tuple[str, ...]
    source: str


@dataclass
class Task:
    """Neighbours of one node in one direction: where asking goes on. ``position`` belongs to ``source``."""

    node: str
    direction: str
    source: str = "semantic_scholar"
    position: str = ""
    done: bool = False


@dataclass
class Walk:
    """A walk under way; what a cursor points at.

    Attributes:
        nodes: by a name that never changes; a paper's best id may become known later.
        pages: the names on each page handed out, so that a cursor gives the same page again.
        reports: what each source did last.
    """

    walk_id: str
    request: WalkRequest
    nodes: dict[str, Node] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)
    pages: list[list[str]] = field(default_factory=list)
    reports: dict[str, SourceReport] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seed_known: bool = False
    _close: dict[str, float] = field(default_factory=dict, repr=False)
    _judged: tuple[int, int] = (0, 0)
    _names: dict[str, str] = field(default_factory=dict, repr=False)
    _titles: dict[str, list[str]] = field(default_factory=dict, repr=False)

    # Growing --------------------------------------------------------------------------------------------------------

    def add(self, paper: Paper, *, depth: int, met_at: str) -> str:
        """Take ``paper`` in, as a new node or as more about a known one; returns the node's name."""
        name = self.find(paper)
        if name is None:
            name = paper.key if paper.keys else self._title_name(paper, met_at)
            self.nodes[name] = Node(paper, depth)
            for direction in self.request.directions:
                if depth < self.request.depth and paper.keys:
                    self.tasks.append(Task(name, direction))
        else:
            node = self.nodes[name]
            node.paper = merge([node.paper, paper])
            node.depth = min(node.depth, depth)
        self._index(name)
        return name

    def connect(
        self,
        citing: str,
        cited: str,
        *,
        influential: bool | None,
        intents: tuple[str, ...],
        contexts: tuple[str, ...],
        source: str,
        far: str,
    ) -> None:
        """Note that ``citing`` cites ``cited``; ``far`` is the end that was reached by it."""
        if citing == cited:
            return
        kept = tuple(_shortened(context) for context in contexts[:CONTEXTS_KEPT])
        self.links.setdefault(f"{citing} {cited}", Link(citing, cited, influential, intents, kept, source))
        node = self.nodes[far]
        node.influential = node.influential or bool(influential)
        node.intents = tuple(dict.fromkeys((*node.intents, *intents)))

    def note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    # Looking --------------------------------------------------------------------------------------------------------

    def pending(self, year: int, *, continued: bool) -> list[Task]:
        """Open tasks, nearest and best first; with ``continued`` also further pages of what was begun."""
        open_tasks = [task for task in self.tasks if not task.done and (continued or not task.position)]
        return sorted(open_tasks, key=lambda task: (self.nodes[task.node].depth, -self.score(task.node, year)))

    def score(self, name: str, year: int) -> float:
        """How much a paper is worth reading next.

        2 if a citation that led here is influential, 1 for an intent of methodology (0.5 for result), half the
        decimal logarithm of the citations, exp(-age / 5 years) for recency, less a half for each step from the seed.
        With a query, how well title and abstract answer it (BM25, 0 to 1) counts 5, and a fifth of all that: what
        many cite for something else does not come first.
        """
        node = self.nodes[name]
        paper = node.paper
        intent = max((_INTENT_WEIGHT.get(intent, 0.0) for intent in node.intents), default=0.0)
        fame = 0.5 * math.log10(1 + (paper.citations or 0))
        recency = 0.0 if paper.year is None else math.exp(-max(0, year - paper.year) / _YEARS_OF_RECENCY)
        standing = 2.0 * node.influential + intent + fame + recency - 0.5 * node.depth
        return standing if not self.request.query else 5.0 * self._closeness().get(name, 0.0) + 0.2 * standing

    def _closeness(self) -> dict[str, float]:
        """How well each paper answers the query; judged anew when papers or abstracts have come."""
        known = (len(self.nodes), sum(bool(node.paper.abstract) for node in self.nodes.values()))
        if self._judged != known:
            texts = [(node.paper.title, node.paper.abstract) for node in self.nodes.values()]
            self._close = dict(zip(self.nodes, closeness(self.request.query, texts), strict=True))
            self._judged = known
        return self._close

    def visible(self) -> Iterator[str]:
        """Names of the papers that pass the filters, the seed left out."""
        for name, node in self.nodes.items():
            if node.depth > 0 and all(verdict is True for verdict in self._verdicts(node)):
                yield name

    def untold(self) -> int:
        """How many papers are left out because a count or a year that a filter needs is not known."""
        out = 0
        for node in self.nodes.values():
            verdicts = self._verdicts(node)
            out += node.depth > 0 and None in verdicts and False not in verdicts
        return out

    def unshown(self) -> list[str]:
        shown = {name for page in self.pages for name in page}
        return [name for name in self.visible() if name not in shown]

    def _verdicts(self, node: Node) -> list[bool | None]:
        least, first = self.request.min_citations, self.request.year_from
        citations, year = node.paper.citations, node.paper.year
        return [
            True if not least else None if citations is None else citations >= least,
            True if first is None else None if year is None else year >= first,
        ]

    # Identity -------------------------------------------------------------------------------------------------------

    def find(self, paper: Paper) -> str | None:
        """The name of the node that ``paper`` is, if it was met before."""
        own = [key for key in paper.keys if key.startswith(("arxiv:", "doi:"))]
        for key in paper.keys:
            name = self._names.get(key)
            if name is not None and not clash(own, self.nodes[name].paper.keys):
                return name
        for name in self._titles.get(title_key(paper.title), ()):
            other = self.nodes[name].paper
            if clash(own, other.keys):
                continue
            if same_by_title(paper, other) or (not (paper.keys and other.keys) and _may_be(paper, other)):
                return name
        return None

    def _index(self, name: str) -> None:
        paper = self.nodes[name].paper
        for key in paper.keys:
            self._names.setdefault(key, name)
        title = title_key(paper.title)
        if len(title) >= SHORTEST_TITLE and name not in self._titles.setdefault(title, []):
            self._titles[title].append(name)

    def _title_name(self, paper: Paper, met_at: str) -> str:
        """A name for a paper without an id. "Introduction" is another one in each paper that cites it."""
        title = title_key(paper.title)
        scope = "" if len(title) >= SHORTEST_TITLE else met_at
        name = f"title:{hashlib.sha256(f'{title} {scope}'.encode()).hexdigest()[:12]}"
        while name in self.nodes and scope == "" and not _may_be(paper, self.nodes[name].paper):
            name += "x"
        return name

    # Keeping --------------------------------------------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs."""
        state = {
            part.name: getattr(self, part.name) for part in dataclasses.fields(self) if not part.name.startswith("_")
        }
        state["request"] = dataclasses.asdict(self.request)
        state["nodes"] = {name: dataclasses.asdict(node) for name, node in self.nodes.items()}
        state["links"] = {name: dataclasses.asdict(link) for name, link in self.links.items()}
        state["tasks"] = [dataclasses.asdict(task) for task in self.tasks]
        state["reports"] = {name: report.model_dump() for name, report in self.reports.items()}
        return state

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Walk:
        """The walk that `as_json` gave; KeyError or TypeError if it is from another version."""
        walk = cls(
            walk_id=state["walk_id"],
            request=WalkRequest(**state["request"]),
            nodes={name: _node(record) for name, record in state["nodes"].items()},
            links={name: _link(record) for name, record in state["links"].items()},
            tasks=[Task(**record) for record in state["tasks"]],
            pages=[list(page) for page in state["pages"]],
            reports={name: SourceReport(**record) for name, record in state["reports"].items()},
            notes=list(state["notes"]),
            seed_known=state["seed_known"],
        )
        for name in walk.nodes:
            walk._index(name)
        return walk


def _may_be(one: Paper, other: Paper) -> bool:
    """Whether an entry without id may be the paper of the same long title: nothing known speaks against it."""
    if len(title_key(one.title)) < SHORTEST_TITLE:
        return False
    if one.year is not None and other.year is not None and abs(one.year - other.year) > 1:
        return False
    return not (one.authors and other.authors) or same_authors(one.authors, other.authors)


def _node(record: Mapping[str, Any]) -> Node:
    return Node(**{**record, "paper": paper_from(record["paper"]), "intents": tuple(record["intents"])})


def _link(record: Mapping[str, Any]) -> Link:
    return Link(**{**record, "intents": tuple(record["intents"]), "contexts": tuple(record["contexts"])})


def _shortened(context: str) -> str:
    return cut(context, _CONTEXT_CHARS, words=True)
