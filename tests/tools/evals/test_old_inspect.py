"""Inspect's logs as older releases and other tools write them: one scorer, lists, texts that stand apart."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.evals.compare import compare_rows
from mlintern.tools.evals.read_files import SampleFiles, read_path
from mlintern.tools.evals.sample_pages import row_with_samples

SCORES = {"base": "CIICIICIICIIII", "better": "CCCCCCCCCCCIII"}


def version_1(model: str, *, created: str = "2024-05-01T10:00:00", **changes: Any) -> dict[str, Any]:
    """A JSON log of version 1: the scorer and its metrics beside it in ``results``, one ``score`` a sample."""
    grades = SCORES[model]
    return {
        "version": 1,
        "status": "success",
        "eval": {"task": "addition", "model": model, "created": created, "dataset": {}, "config": {}},
        "results": {
            "scorer": {"name": "match", "params": {}},
            "metrics": {
                "accuracy": {"name": "accuracy", "value": grades.count("C") / len(grades), "options": {}},
                "stderr": {"name": "stderr", "value": 0.12, "options": {}},
            },
        },
        "samples": [
            {
                "id": at,
                "epoch": 1,
                "input": "attachment://q1" if at == 0 else f"What is {at} + 1?",
                "target": str(at + 1),
                "output": {"completion": "attachment://a1" if at == 0 else "I think so"},
                "score": {"value": grade, "answer": str(at)},
                "attachments": {"q1": "What is 0 + 1, said at length?", "a1": "It is one."} if at == 0 else {},
            }
            for at, grade in enumerate(grades)
        ],
    } | changes


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_a_log_of_version_1_is_read_and_paired(tmp_path: Path) -> None:
    base, better = (read_path(write(tmp_path / f"{name}.json", version_1(name))).rows for name in SCORES)
    [row] = base
    assert (row.task, row.metric, row.filter, row.higher_is_better) == ("addition", "accuracy", "match", True)
    assert (row.value, row.stderr) == (pytest.approx(4 / 14), 0.12)
    [compared] = compare_rows(base, better).rows
    assert compared.method.startswith("paired, exact McNemar test (7 items gained, 0 lost)")
    assert (compared.verdict, compared.n) == ("improved", 14)


def test_texts_that_stand_apart_are_put_back(tmp_path: Path) -> None:
    path = write(tmp_path / "log.json", version_1("base"))
    _, samples = row_with_samples(read_path(path).rows, SampleFiles())
    first = samples[0]
    assert (first.question, first.answer) == ("What is 0 + 1, said at length?", "It is one.")
    assert (samples[1].question, samples[1].score) == ("What is 1 + 1?", 0.0)


def test_messages_that_stand_apart_in_an_archive_are_put_back(tmp_path: Path) -> None:
    header = version_1("base")
    samples = header.pop("samples")
    whole = {
        **samples[0],
        "messages": [
            {"role": "user", "content": "attachment://m"},
            {"role": "assistant", "content": "attachment://a1"},
        ],
        "attachments": {"m": "What is 0 + 1?", "a1": "It is one."},
    }
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps(header))
        archive.writestr("summaries.json", json.dumps([{**one, "output": None} for one in samples]))
        archive.writestr("samples/0_epoch_1.json", json.dumps(whole))
    files = SampleFiles()
    row, found = row_with_samples(read_path(path).rows, files)
    first = files.whole(row, found[0])
    assert (first.answer, first.prompt) == ("It is one.", "user: What is 0 + 1?")


def test_several_logs_in_one_list_are_kept_apart(tmp_path: Path) -> None:
    logs = [version_1("base"), version_1("better", created="2024-05-02T10:00:00")]
    rows = read_path(write(tmp_path / "logs.json", logs)).rows
    assert [(row.model, round(row.value, 3)) for row in rows] == [("base", 0.286), ("better", 0.786)]
    [compared] = compare_rows(rows[:1], rows[1:]).rows
    assert compared.method.startswith("paired, exact McNemar test (7 items gained, 0 lost)")


def test_metrics_as_a_list_have_their_names(tmp_path: Path) -> None:
    metrics = [{"name": "accuracy", "value": 0.25}, {"name": "stderr", "value": 0.1}]
    log = version_1("base", version=2, results={"scores": [{"name": "match", "scorer": "match", "metrics": metrics}]})
    [row] = read_path(write(tmp_path / "log.json", log)).rows
    assert (row.metric, row.value, row.stderr) == ("accuracy", 0.25, 0.1)


def test_a_scorer_that_gives_several_values_is_paired_value_by_value(tmp_path: Path) -> None:
    def log(model: str) -> dict[str, Any]:
        grades = SCORES[model]
        right = grades.count("C") / len(grades)
        score = {"scorer": "graded", "metrics": {"mean": {"name": "mean", "value": right}}}
        samples = [
            {
                "id": at,
                "epoch": 1,
                "scores": {"graded": {"value": {"correct": float(grade == "C"), "polite": 1.0}}},
            }
            for at, grade in enumerate(grades)
        ]
        polite = {"name": "polite", "scorer": "graded", "metrics": {"mean": {"name": "mean", "value": 1.0}}}
        results = {"scores": [{**score, "name": "correct"}, polite], "completed_samples": len(grades)}
        return version_1(model, version=2, results=results, samples=samples)

    base, better = (read_path(write(tmp_path / f"{name}.json", log(name))).rows for name in SCORES)
    right, polite = compare_rows(base, better).rows
    assert (right.filter, right.verdict) == ("correct", "improved") and right.method.startswith("paired, exact")
    assert (polite.filter, polite.verdict, polite.delta) == (
        "polite",
        "no_evidence",
        0.0,
    ) and polite.higher_is_better is None


def test_pass_at_k_of_several_epochs_is_paired_item_by_item(tmp_path: Path) -> None:
    def log(model: str, right: list[int]) -> dict[str, Any]:
        samples = [
            {"id": at, "epoch": epoch + 1, "scores": {"verify": {"value": "C" if epoch < count else "I"}}}
            for at, count in enumerate(right)
            for epoch in range(4)
        ]
        value = sum(1 - (4 - n) * (3 - n) / 12 if n < 3 else 1.0 for n in right) / len(right)
        metrics = {"accuracy": {"name": "accuracy", "value": value}}
        scores = [{"name": "verify", "scorer": "verify", "reducer": "pass_at_2", "metrics": metrics}]
        header = version_1("base", version=2, results={"scores": scores, "completed_samples": 48}, samples=samples)
        header["eval"] = {**header["eval"], "model": model, "config": {"epochs": 4}}
        return header

    base = read_path(write(tmp_path / "a.json", log("a", [0, 1, 2, 4, 0, 1, 2, 3, 0, 0, 1, 1]))).rows
    better = read_path(write(tmp_path / "b.json", log("b", [2, 3, 4, 4, 2, 3, 4, 4, 2, 2, 3, 3]))).rows
    [row] = compare_rows(base, better).rows
    assert (row.filter, row.verdict, row.n) == ("verify/pass_at_2", "improved", 12)
    assert row.method.startswith("paired t-test")
