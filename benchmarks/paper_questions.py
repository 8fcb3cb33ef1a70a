"""Do questions find their papers? nDCG@10 and recall@10 of `search_papers` on questions of SPAR-bench.

The pool of papers is served by the stand-ins of arXiv, OpenAlex and Semantic Scholar on loopback, each with its own
query rules; search_papers asks them as it asks the real ones. The files are those of SPAR (repository
xiaofengShi/SPAR, MIT licence): ``pool.jsonl`` (id, title, abstract) and ``questions_dev.jsonl`` (question, gold).
They are not part of this project: give their folder, or set MLINTERN_RECORDED.

    python benchmarks/paper_questions.py [--folder DIR] [--first N] [--sources arxiv ...] [--folds]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlintern.tools.papers.paper import Paper
from mlintern.tools.papers.ranking import Weights
from mlintern.tools.papers.search import judged
from mlintern.tools.papers.service import PaperService
from mlintern.tools.web import Web
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.arxiv import ArxivApi
from tests.services.boolean import plain
from tests.services.corpus import Corpus, Entry
from tests.services.openalex import OpenAlex
from tests.services.semantic_scholar import SemanticScholar

SOURCES = ("arxiv", "semantic_scholar", "openalex")
DEPTH = 10


@dataclass(frozen=True)
class Pool(Corpus):
    """The papers of the benchmark. ``names``: the id in the benchmark by the arXiv id that stands for it here."""

    papers: tuple[dict[str, object], ...] = ()
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        entries = []
        for number, paper in enumerate(self.papers):
            year = int(str(paper.get("year") or 2020))
            entry = Entry(
                number=number,
                arxiv=f"{2001 + number % 12}.{10_000 + number}",
                title=str(paper["title"]),
                authors=(f"Author {number}",),
                year=year,
                citations=int(str(paper.get("citationCount") or 0)),
                abstract=str(paper["abstract"]),
            )
            entries.append(entry)
            self.names[f"arxiv:{entry.arxiv}"] = str(paper["id"])
        object.__setattr__(self, "entries", tuple(entries))

    def relevant(self, words: str) -> list[Entry]:
        """A relevance search: papers with at least half of the words, those with most first."""
        wanted = set(plain(words).split())
        return [one for one in self.ranked(words) if 2 * len(wanted & set(one.fields["all"].split())) >= len(wanted)]


def ndcg(ranked: list[str], gold: set[str]) -> float:
    """With binary relevance, cut at `DEPTH`."""
    gained = sum(1 / math.log2(place + 2) for place, name in enumerate(ranked[:DEPTH]) if name in gold)
    return gained / sum(1 / math.log2(place + 2) for place in range(min(DEPTH, len(gold))))


async def measure(folder: Path, *, first: int | None, sources: list[str]) -> dict[str, float]:
    """Mean nDCG@10 and recall@10 over the questions, requests and seconds a question."""
    pool = Pool(papers=tuple(_lines(folder / "pool.jsonl")))
    questions = _lines(folder / "questions_dev.jsonl")[:first]
    gains, recalls, seconds = [], [], []
    with contextlib.ExitStack() as stack:
        services = {"arxiv": ArxivApi(pool), "semantic_scholar": SemanticScholar(pool), "openalex": OpenAlex(pool)}
        for service in services.values():
            stack.enter_context(service.running())
        environ = {
            "MLINTERN_ARXIV_API_URL": services["arxiv"].url,
            "MLINTERN_S2_URL": services["semantic_scholar"].url,
            "MLINTERN_OPENALEX_URL": services["openalex"].url,
        }
        workspace = Workspace.open(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        clock = FakeClock()
        web = Web(workspace, clock, environ=environ, rng=random.Random(0))
        papers = PaperService(web, workspace, clock)
        for question in questions:
            gold = {str(name) for name in question["gold"]}  # type: ignore[attr-defined]
            begun = time.perf_counter()
            result = await papers.search(query=str(question["question"]), limit=DEPTH, sources=sources)
            seconds.append(time.perf_counter() - begun)
            ranked = [pool.names.get(item.paper_id, "") for item in result.items]
            gains.append(ndcg(ranked, gold))
            recalls.append(len(gold & set(ranked)) / len(gold))
        await web.close()
        requests = sum(len(service.seen) for service in services.values())
    return {
        "questions": len(questions),
        "ndcg": statistics.fmean(gains),
        "recall": statistics.fmean(recalls),
        "requests": requests / len(questions),
        "seconds": statistics.median(seconds),
    }


CHOICES = [
    Weights(),
    *(Weights(title=title) for title in (1.0, 2.0, 5.0)),
    *(Weights(phrase=phrase) for phrase in (0.0, 0.15, 0.6)),
    *(Weights(feedback=feedback) for feedback in (0.0, 0.1, 0.4)),
    *(Weights(sources=share) for share in (0.0, 0.1, 0.3)),
]
FOLDS = 5


async def cross_validate(folder: Path) -> dict[str, float]:
    """Mean nDCG@10 of questions that had no say in the weights: chosen on four folds, measured on the fifth.

    What the services answer does not depend on the weights, so each question is asked once, and what came back is
    ranked with each choice. ``chosen_on_all`` is what the choice on all questions gives on the same questions.
    """
    hits: dict[str, tuple[list[Paper], int | None]] = {}

    def keep(text: str, papers: Sequence[Paper], *, year: int | None) -> list[Paper]:
        hits[text] = (list(papers), year)
        return list(papers)

    with mock.patch("mlintern.tools.papers.search.judged", keep):
        await measure(folder, first=None, sources=list(SOURCES))
    pool = Pool(papers=tuple(_lines(folder / "pool.jsonl")))
    gains: list[list[float]] = []  # of each question, by choice
    for question in _lines(folder / "questions_dev.jsonl"):
        text, gold = " ".join(str(question["question"]).split()), {str(name) for name in question["gold"]}  # type: ignore[attr-defined]
        row = []
        for weights in CHOICES:
            found, year = hits.get(text, ([], None))
            ranked = judged(text, found, year=year, weights=weights) if found else []
            row.append(ndcg([pool.names.get(paper.key, "") for paper in ranked], gold))
        gains.append(row)
    held, same = [], 0
    for fold in range(FOLDS):
        own = [row for number, row in enumerate(gains) if number % FOLDS == fold]
        rest = [row for number, row in enumerate(gains) if number % FOLDS != fold]
        best = max(range(len(CHOICES)), key=lambda choice: (sum(row[choice] for row in rest), -choice))
        held += [row[best] for row in own]
        same += best == 0
    totals = [statistics.fmean(row[choice] for row in gains) for choice in range(len(CHOICES))]
    return {
        "questions": len(gains),
        "choices": len(CHOICES),
        "held_out": statistics.fmean(held),
        "as_it_is": totals[0],
        "chosen_on_all": max(totals),
        "worst": min(totals),
        "folds_that_keep_ours": same,
    }


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def main() -> int:
    recorded = Path(os.environ.get("MLINTERN_RECORDED", Path(__file__).resolve().parents[2] / "shared" / "recorded"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=recorded / "paper-questions")
    parser.add_argument("--first", type=int, help="only so many questions")
    parser.add_argument("--sources", nargs="+", choices=SOURCES, help="only these; all and each alone if omitted")
    parser.add_argument("--folds", action="store_true", help="choose the weights by cross-validation")
    asked = parser.parse_args()
    if not (asked.folder / "pool.jsonl").exists():
        print(f"skipped: {asked.folder} holds no pool.jsonl")
        return 0
    os.environ["MLINTERN_WAIT_SCALE"] = "0"
    if asked.folds:
        for name, value in asyncio.run(cross_validate(asked.folder)).items():
            print(f"{name:<24} {value:>6.3f}" if isinstance(value, float) else f"{name:<24} {value:>6}")
        return 0
    runs = [asked.sources] if asked.sources else [list(SOURCES), *([name] for name in SOURCES)]
    print(f"{'sources':<38} {'questions':>9} {'nDCG@10':>8} {'recall@10':>9} {'requests':>8} {'s':>6}")
    for sources in runs:
        row = asyncio.run(measure(asked.folder, first=asked.first, sources=sources))
        print(
            f"{', '.join(sources):<38} {row['questions']:>9.0f} {row['ndcg']:>8.3f} {row['recall']:>9.3f} "
            f"{row['requests']:>8.1f} {row['seconds']:>6.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
