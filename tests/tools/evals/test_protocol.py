"""Two measurements are compared only where they were made alike; else the difference is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.evals import eval_ledger
from mlintern.tools.evals.compare import compare_rows
from mlintern.tools.evals.comparison_results import ComparedRow
from mlintern.tools.evals.read_files import SampleFiles, read_path
from mlintern.tools.ledger import Ledger
from tests.tools.evals.results import add_job, inspect_header, write_inspect, write_lm_eval, write_own

PROTOCOL: dict[str, Any] = {
    "kind": "written",
    "prompt": "{question}",
    "system": None,
    "fewshot": 0,
    "chat_template": "abc",
    "chat_template_kwargs": {},
    "extract": "#### (.+)",
    "max_new_tokens": 256,
    "samples": 1,
    "temperature": 0.0,
    "items": "feed",
}


def compared(baseline: Path, candidate: Path) -> ComparedRow:
    rows = [read_path(path).rows for path in (baseline, candidate)]
    return compare_rows(*rows, samples=SampleFiles()).rows[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "Q: {question}"}, "different prompt ({question}, Q: {question})"),
        ({"system": "Be brief."}, "different system message (none, Be brief.)"),
        ({"chat_template": "none"}, "different chat template (abc, none)"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "different chat template arguments"),
        ({"extract": "(\\d+)"}, "different extraction pattern"),
        ({"max_new_tokens": 4096}, "different token limit (256, 4096)"),
        ({"samples": 8, "temperature": 0.7}, "different samples (1, 8); different temperature (0.0, 0.7)"),
        ({"prepare": "1234"}, "different prepare (none, 1234)"),
    ],
)
def test_two_evaluations_of_different_protocols_are_not_comparable_and_the_difference_is_named(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    baseline = write_own(tmp_path / "a", [0.0] * 40, protocol=PROTOCOL)
    candidate = write_own(tmp_path / "b", [1.0] * 40, protocol={**PROTOCOL, **changes})
    row = compared(baseline, candidate)
    assert row.verdict == "not_comparable"
    assert words in row.reason


def test_the_same_protocol_has_one_fingerprint_and_is_compared(tmp_path: Path) -> None:
    baseline = write_own(tmp_path / "a", [0.0] * 40, protocol=PROTOCOL)
    candidate = write_own(tmp_path / "b", [1.0] * 40, protocol=dict(reversed(PROTOCOL.items())))
    assert read_path(baseline).rows[0].fingerprint == read_path(candidate).rows[0].fingerprint
    assert compared(baseline, candidate).verdict == "improved"


def test_a_result_that_states_no_protocol_is_compared_as_before(tmp_path: Path) -> None:
    baseline = write_own(tmp_path / "a", [0.0] * 40)
    candidate = write_own(tmp_path / "b", [1.0] * 40, protocol=PROTOCOL)
    assert compared(baseline, candidate).verdict == "improved"


def changed(path: Path, **changes: Any) -> Path:
    document = json.loads(path.read_text())
    config = {**document["config"], **changes.pop("config", {})}
    path.write_text(json.dumps({**document, **changes, "config": config}))
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"chat_template_sha": "f00d"}, "different chat template (none, f00d)"),
        ({"config": {"gen_kwargs": "max_gen_toks=4096"}}, "different generation arguments"),
        ({"system_instruction_sha": "beef"}, "different system message (none, beef)"),
    ],
)
def test_a_chat_template_or_generation_arguments_on_one_side_only_stand_in_the_way(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    baseline = write_lm_eval(tmp_path / "a", [0.0] * 40)
    candidate = changed(write_lm_eval(tmp_path / "b", [1.0] * 40), **changes)
    row = compared(baseline, candidate)
    assert row.verdict == "not_comparable"
    assert words in row.reason


def test_a_task_version_of_1_is_that_of_1_point_0(tmp_path: Path) -> None:
    baseline = changed(write_lm_eval(tmp_path / "a", [0.0] * 40), versions={"gsm8k": 1})
    candidate = changed(write_lm_eval(tmp_path / "b", [1.0] * 40), versions={"gsm8k": "1.0"})
    assert compared(baseline, candidate).verdict == "improved"
    candidate = changed(candidate, versions={"gsm8k": 1.1})
    assert "different task version (1, 1.1)" in compared(baseline, candidate).reason


def test_inspect_logs_of_other_sampling_are_not_comparable(tmp_path: Path) -> None:
    header = inspect_header()
    baseline = write_inspect(tmp_path / "a.eval", header)
    spec = {**header["eval"], "model_generate_config": {"temperature": 0.7, "max_connections": 8}}
    candidate = write_inspect(tmp_path / "b.eval", {**header, "eval": spec})
    assert 'different generation (none, {"temperature": 0.7})' in compared(baseline, candidate).reason


def test_the_ledger_keeps_the_protocol(tmp_path: Path, ledger: Ledger) -> None:
    add_job(ledger, "job-1")
    rows = read_path(write_own(tmp_path, [1.0, 0.0], protocol=PROTOCOL)).rows
    eval_ledger.store(ledger, job_id="job-1", rows=rows, now=1.0)
    [kept] = eval_ledger.of_jobs(ledger, ["job-1"])["job-1"]
    assert kept.protocol == PROTOCOL and kept.fingerprint == rows[0].fingerprint
