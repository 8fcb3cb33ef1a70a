"""Results of EvalPlus (``*_eval_results.json``) and of the BigCode evaluation harness."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from mlintern.tools.evals.documents import Reading, ResultFile
from mlintern.tools.evals.fields import ByName, Document, Listed, Text, finite, mapping, number
from mlintern.tools.evals.result_rows import EvalProblem, EvalRow, Sample

SUITE = "code"
EVALPLUS = "evalplus"
BIGCODE = "bigcode"
SETTINGS = ("prefix", "do_sample", "temperature", "top_k", "top_p", "n_samples", "instruction_tokens")
NAMES = {"HumanEval": "humaneval", "Mbpp": "mbpp"}


class Attempt(Document):
    """One answer. ``base`` and ``plus`` are two sets of tests; ``plus`` is passed only with both."""

    solution: Text
    base_status: Text
    plus_status: Text

    def passes(self, tests: str) -> bool:
        statuses = [self.base_status, self.plus_status] if tests == "plus" else [self.base_status]
        return all(status in ("pass", "success") for status in statuses)


class EvalPlus(Document):
    date: Text
    eval: ByName[Listed[Attempt]]

    @property
    def tried(self) -> dict[str, list[Attempt]]:
        return {name: attempts for name, attempts in self.eval.items() if attempts}


class BigCodeConfig(Document):
    model: Text
    limit: Any


def matches(file: ResultFile) -> bool:
    return _is_evalplus(mapping(file.data)) or _is_bigcode(mapping(file.data))


def read(file: ResultFile) -> Reading:
    data = mapping(file.data)
    return Reading.of(_evalplus(file) if _is_evalplus(data) else _bigcode(file, data))


def samples(file: ResultFile, row: EvalRow) -> dict[str, float] | None:
    """EvalPlus: pass@1 of each problem. None for BigCode, which keeps no single problems."""
    if row.suite != EVALPLUS or row.metric != "pass@1":
        return None
    tried = EvalPlus.model_validate(file.data).tried
    return {name: _pass_at(1, attempts, row.filter or "base") for name, attempts in tried.items()} or None


def items(file: ResultFile, row: EvalRow) -> list[Sample] | None:
    """EvalPlus: the first solution of each problem."""
    scores = samples(file, row)
    if scores is None:
        return None
    tried = EvalPlus.model_validate(file.data).tried
    return [
        Sample(id=name, metric=row.metric, score=score, answer=tried[name][0].solution)
        for name, score in scores.items()
    ]


def _is_evalplus(data: dict[str, Any]) -> bool:
    attempts = next(iter(mapping(data.get("eval")).values()), None)
    return isinstance(attempts, list) and "base_status" in mapping(attempts[0] if attempts else None)


def _is_bigcode(data: dict[str, Any]) -> bool:
    others = [part for key, part in data.items() if key != "config"]
    settings = mapping(data.get("config")).keys()
    return {"n_samples", "tasks"} <= settings and bool(others) and all(isinstance(part, dict) for part in others)


def _evalplus(file: ResultFile) -> Iterator[EvalRow | EvalProblem]:
    document = EvalPlus.model_validate(file.data)
    tried = document.tried
    benchmark = next(iter(tried)).partition("/")[0]
    least = min(map(len, tried.values()))
    has_plus = any(attempt.plus_status for attempts in tried.values() for attempt in attempts)
    for tests in ("base", "plus") if has_plus else ("base",):
        for k in (k for k in (1, 10, 100) if k <= least):
            scores = [_pass_at(k, attempts, tests) for attempts in tried.values()]
            value = math.fsum(scores) / len(scores)
            yield file.row(
                suite=EVALPLUS,
                task_raw=NAMES.get(benchmark, benchmark),
                metric=f"pass@{k}",
                filter=tests,
                value=value,
                stderr=math.sqrt(math.fsum((score - value) ** 2 for score in scores)) / len(scores),
                n=len(scores),
                date=document.date,
            )


def _pass_at(k: int, attempts: list[Attempt], tests: str) -> float:
    """1 - C(n - c, k) / C(n, k) of c right among n (Chen et al. 2021, arXiv:2107.03374)."""
    n, right = len(attempts), sum(attempt.passes(tests) for attempt in attempts)
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def _bigcode(file: ResultFile, data: dict[str, Any]) -> Iterator[EvalRow | EvalProblem]:
    raw = mapping(data["config"])
    config = BigCodeConfig.model_validate(raw)
    for task, scores in ((key, part) for key, part in data.items() if key != "config"):
        for metric, value in scores.items():
            if number(value) is None:
                continue
            score = finite(value)
            if score is None:
                yield file.not_finite(f"{task}.{metric}", value)
                continue
            yield file.row(
                suite=BIGCODE,
                task_raw=task,
                metric=metric,
                value=score,
                model=config.model,
                protocol={key: raw[key] for key in SETTINGS if raw.get(key) is not None},
                notes=() if config.limit is None else (f"limit={config.limit}",),
            )
