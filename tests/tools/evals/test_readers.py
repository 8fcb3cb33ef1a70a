"""Each harness's format by value: files made here in the shapes of the current releases, and recorded real ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.evals.read_files import SampleFiles, read_path
from mlintern.tools.evals.readers.lighteval import task_of
from mlintern.tools.evals.result_rows import EvalRow
from tests.tools.evals.results import (
    INSPECT_SUMMARIES,
    inspect_header,
    write_inspect,
    write_lm_eval,
    write_own,
    write_zstandard_zip,
)


def only(rows: list[EvalRow], **wanted: Any) -> EvalRow:
    found = [row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())]
    assert len(found) == 1, f"{len(found)} rows match {wanted}"
    return found[0]


def samples_of(row: EvalRow) -> dict[str, float] | None:
    return SampleFiles()(row)


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


# --- mlintern -------------------------------------------------------------------------------------------------------


def test_own_evaluation_is_read_with_its_samples(tmp_path: Path) -> None:
    [row] = read_path(write_own(tmp_path, [1.0, 0.0, 1.0, 1.0])).rows
    assert (row.task, row.metric, row.filter, row.value, row.n) == ("maxnum", "accuracy", "likelihood", 0.75, 4)
    assert (row.suite, row.model, row.fewshot, row.stderr_derived) == ("mlintern", "base", 0, False)
    assert samples_of(row) == {"item-0": 1.0, "item-1": 0.0, "item-2": 1.0, "item-3": 1.0}


def test_an_evaluation_that_only_reached_the_log_is_read_from_the_log(tmp_path: Path) -> None:
    document = json.loads(write_own(tmp_path, [1.0, 0.0]).read_text())
    telemetry = json.dumps({"v": 1, "kind": "evaluation", "time": 1, "evaluation": document})
    log = tmp_path / "log.txt"
    log.write_text(f"loading\r 50%|###  | @mlintern {telemetry}\nbye @mlintern {telemetry[:40]}\n")
    [row] = read_path(log).rows
    assert row.value == 0.5


def test_telemetry_rows_stand_in_for_a_missing_evaluation_file_and_do_not_repeat_a_present_one(
    tmp_path: Path,
) -> None:
    path = write_own(tmp_path, [1.0, 0.0])
    row = {"v": 1, "kind": "evaluation", "time": 1, "evaluation": json.loads(path.read_text())}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert len(read_path(tmp_path).rows) == 1
    path.unlink()
    [row_of_telemetry] = read_path(tmp_path).rows
    assert row_of_telemetry.source.endswith("metrics.jsonl")


def test_a_later_format_of_our_own_is_refused_by_number(tmp_path: Path) -> None:
    path = write_own(tmp_path, [1.0], mlintern_evaluation=2)
    with pytest.raises(BadInput) as caught:
        read_path(path)
    assert "mlintern_evaluation = 2" in caught.value.message


@pytest.mark.parametrize("key", ["task", "rows"])
def test_a_missing_key_is_named_with_its_file(tmp_path: Path, key: str) -> None:
    path = write_own(tmp_path, [1.0])
    document = json.loads(path.read_text())
    del document[key]
    with pytest.raises(BadInput) as caught:
        read_path(write(path, document))
    assert repr(key) in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.next_step


def test_two_samples_with_one_id_are_refused(tmp_path: Path) -> None:
    [row] = read_path(write_own(tmp_path, [1.0, 0.0])).rows
    (tmp_path / "samples.jsonl").write_text('{"id": 1, "accuracy": 1.0}\n{"id": 1, "accuracy": 0.0}\n')
    with pytest.raises(BadInput) as caught:
        samples_of(row)
    assert "id 1" in caught.value.message


def test_samples_outside_the_result_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.jsonl").write_text('{"id": 1, "accuracy": 1.0}\n')
    [row] = read_path(write_own(tmp_path / "job", [1.0], samples="../elsewhere.jsonl")).rows
    assert samples_of(row) is None


# --- lm-eval --------------------------------------------------------------------------------------------------------


def test_lm_eval_keys_are_split_into_metric_and_filter(tmp_path: Path) -> None:
    rows = read_path(write_lm_eval(tmp_path, [1.0, 0.0, 1.0, 1.0])).rows
    strict = only(rows, filter="strict-match")
    assert (strict.suite, strict.task, strict.metric, strict.value) == ("lm-eval", "gsm8k", "exact_match", 0.75)
    assert (strict.stderr, strict.stderr_derived, strict.n, strict.fewshot) == (0.011, False, 4, 5)
    assert (strict.version, strict.model, strict.date) == ("3.0", "org/base", "2025-11-23T05:20:00Z")
    assert strict.notes == ("limit=4",)


def test_a_stderr_that_is_not_available_is_derived_and_marked(tmp_path: Path) -> None:
    row = only(read_path(write_lm_eval(tmp_path, [1.0] * 25)).rows, filter="flexible-extract")
    assert row.stderr_derived
    assert row.stderr == pytest.approx(math.sqrt(0.5 * 0.5 / 25))


def test_lm_eval_samples_are_those_of_the_rows_filter(tmp_path: Path) -> None:
    rows = read_path(write_lm_eval(tmp_path, [1.0, 0.0])).rows
    assert samples_of(only(rows, filter="strict-match")) == {"0:h0": 1.0, "1:h1": 0.0}
    assert samples_of(only(rows, filter="flexible-extract")) == {"0:h0": 0.5, "1:h1": 0.5}


def test_a_group_counts_the_items_of_its_subtasks(tmp_path: Path) -> None:
    document = {
        "results": {"mmlu": {"alias": "mmlu", "acc,none": 0.4, "sample_count": {"acc,none": 14042}}},
        "groups": {"mmlu": {"alias": "mmlu", "acc,none": 0.4, "sample_count": {"acc,none": 14042}}},
        "group_subtasks": {"mmlu": ["mmlu_stem", "mmlu_other"]},
        "versions": {},
    }
    [row] = read_path(write(tmp_path / "results_x.json", document)).rows
    assert (row.n, row.subtasks, row.stderr) == (14042, 2, None)


def test_a_score_of_nan_is_named_and_is_no_row(tmp_path: Path) -> None:
    path = write_lm_eval(tmp_path, [1.0])
    path.write_text(
        path.read_text().replace('"exact_match,flexible-extract": 0.5', '"exact_match,flexible-extract": NaN')
    )
    reading = read_path(path)
    assert [row.filter for row in reading.rows] == ["strict-match"]
    [problem] = reading.problems
    assert problem.key == "results.gsm8k.exact_match,flexible-extract"
    assert problem.source == str(path)


def test_recorded_lm_eval_results_before_0_4_are_read_by_value(recorded: Path) -> None:
    """evals__bloom__bloom-560m.json, arc_challenge-v2.0-res.json (see README.md beside them)."""
    folder = recorded / "eval-lm-eval"
    rows = read_path(folder / "evals__bloom__bloom-560m.json").rows
    arc = only(rows, task="arc_challenge", metric="acc")
    assert (arc.value, arc.stderr) == (0.22098976109215018, 0.012124929206818258)
    assert (arc.fewshot, arc.model, arc.version, arc.filter) == (0, "bigscience/bloom-560m", "0", None)
    marketing = only(rows, task_raw="hendrycksTest-marketing", metric="acc_norm")
    assert (marketing.task, marketing.value) == ("mmlu_marketing", 0.3247863247863248)
    perplexity = only(rows, metric="ppl")
    assert (perplexity.value, perplexity.higher_is_better) == (28.771677896772093, False)
    assert len(rows) == 128  # 65 tasks with two scores each, but wsc and winogrande have one
    [second, _] = read_path(folder / "arc_challenge-v2.0-res.json").rows
    assert (second.value, second.version) == (0.26621160409556316, "2.0")


# --- lighteval ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "task"),
    [
        ("gsm8k:5", ("gsm8k", 5)),
        ("mmlu:abstract_algebra:0", ("mmlu:abstract_algebra", 0)),
        ("lighteval|gsm8k|5", ("gsm8k", 5)),
        ("leaderboard|mmlu:anatomy|5|0", ("mmlu:anatomy", 5)),
        ("custom:aime24:0", ("aime24", 0)),
        ("mmlu:_average:5", ("mmlu:_average", 5)),
    ],
)
def test_every_generation_of_lighteval_keys_is_understood(key: str, task: tuple[str, int]) -> None:
    assert task_of(key) == task


def test_current_lighteval_results_are_read_with_their_averages(tmp_path: Path) -> None:
    config = {"metrics": [{"metric_name": "em", "higher_is_better": {"em": True}}], "effective_num_docs": 50}
    document = {
        "config_general": {"model_config": {"model_name": "org/base"}, "model_name": "org/base", "max_samples": 50},
        "results": {
            "mmlu:anatomy:5": {"em": 0.4, "em_stderr": 0.07},
            "mmlu:astronomy:5": {"em": 0.6},
            "mmlu:_average:5": {"em": 0.5, "em_stderr": 0.05},
            "all": {"em": 0.5},
        },
        "versions": {"mmlu:anatomy:5": 2},
        "config_tasks": {"mmlu:anatomy": config, "mmlu:astronomy": config},
        "summary_tasks": {"mmlu:anatomy:5": {"hashes": {"hash_examples": "abc"}}},
    }
    rows = read_path(write(tmp_path / "results_2026-11-23T05-00-00.123456.json", document)).rows
    anatomy = only(rows, task="mmlu_anatomy")
    assert (anatomy.value, anatomy.stderr, anatomy.n, anatomy.fewshot) == (0.4, 0.07, 50, 5)
    assert (anatomy.items, anatomy.version, anatomy.date) == ("abc", "2", "2026-11-23T05:00:00")
    assert only(rows, task="mmlu_astronomy").stderr_derived
    average = only(rows, task="mmlu")
    assert (average.subtasks, average.n, average.stderr) == (2, None, 0.05)
    assert only(rows, task="all").subtasks == 2


def test_recorded_lighteval_results_are_read_by_value(recorded: Path) -> None:
    """evals__Exp1_100__results_2025-03-14T23-36-50.272791.json: old keys, and an ``all`` that repeats."""
    [row] = read_path(recorded / "eval-lighteval" / "evals__Exp1_100__results_2025-03-14T23-36-50.272791.json").rows
    assert (row.suite, row.task, row.task_raw) == ("lighteval", "math_500", "custom|math_500|0")
    assert (row.metric, row.value, row.stderr, row.n) == ("extractive_match", 0.838, 0.016494123566423505, 500)
    assert (row.fewshot, row.higher_is_better, row.model) == (0, True, "quyanh/OpenRS-GRPO")
    assert (row.version, row.items, row.date) == ("1", "adf0cc8311011db2", "2025-03-14T23:36:50")


# --- Inspect --------------------------------------------------------------------------------------------------------


def test_an_inspect_archive_gives_its_scores_with_the_headline_first(tmp_path: Path) -> None:
    headline, match = read_path(write_inspect(tmp_path / "log.eval", inspect_header())).rows
    assert (headline.metric, headline.value, headline.stderr) == ("prompt_strict_acc", 0.4, 0.1)
    assert "headline" in headline.notes
    assert (match.metric, match.filter, match.value, match.stderr) == ("accuracy", "match", 0.5, 0.2)
    assert (match.task, match.task_raw, match.version, match.fewshot) == ("ifeval", "inspect_evals/ifeval", "2-A", 4)
    assert "1 samples unscored" in match.notes


def test_epochs_are_attempts_at_an_item_not_items(tmp_path: Path) -> None:
    headline, match = read_path(write_inspect(tmp_path / "log.eval", inspect_header())).rows
    assert match.n == 3
    assert headline.n == 3  # six attempts in two epochs; this scorer states no count
    assert samples_of(match) == {"a": 0.5, "b": 0.75, "c": 0.25}


@pytest.mark.parametrize("status", ["cancelled", "error", "started"])
def test_an_unfinished_inspect_log_is_named_and_gives_no_rows(tmp_path: Path, status: str) -> None:
    header = inspect_header(status=status, error={"message": "CUDA out of memory"})
    reading = read_path(write_inspect(tmp_path / "log.eval", header))
    assert reading.rows == []
    assert status in reading.problems[0].message
    assert "CUDA out of memory" in reading.problems[0].message


def test_an_unknown_inspect_log_version_is_refused_by_number(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        read_path(write_inspect(tmp_path / "log.eval", inspect_header(version=3)))
    assert "version 3" in caught.value.message


def test_an_inspect_archive_compressed_with_zstandard_is_read(tmp_path: Path) -> None:
    members = {"header.json": json.dumps(inspect_header()), "summaries.json": json.dumps(INSPECT_SUMMARIES)}
    path = write_zstandard_zip(tmp_path / "log.eval", {name: text.encode() for name, text in members.items()})
    rows = read_path(path).rows
    assert [row.value for row in rows] == [0.4, 0.5]
    assert samples_of(rows[1]) == {"a": 0.5, "b": 0.75, "c": 0.25}


def test_a_truncated_archive_says_so(tmp_path: Path) -> None:
    path = write_inspect(tmp_path / "log.eval", inspect_header())
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BadInput):
        read_path(path)


def test_recorded_inspect_logs_are_read_by_value(recorded: Path) -> None:
    """test_eval_log__log_streaming.eval has two items in two epochs; its stderr is that of two values, 0.5 and 1."""
    [row] = read_path(recorded / "eval-inspect" / "test_eval_log__log_streaming.eval").rows
    assert (row.suite, row.task, row.metric, row.filter) == ("inspect", "popularity", "accuracy", "match")
    assert (row.value, row.stderr, row.n) == (0.75, 0.25, 2)
    assert row.model == "azureai/Meta-Llama-3-1-405B-Instruct-jqf"
    assert samples_of(row) == {"1": 0.5, "2": 1.0}
    [plain] = read_path(recorded / "eval-inspect" / "test_eval_log__log_formats.json").rows
    assert (plain.value, plain.stderr, plain.n, plain.version) == (0.0, 0.0, 1, "0")
    cancelled = read_path(recorded / "eval-inspect" / "test_logs__2025-05-12T20-28-13-04-00_no-samples.json")
    assert cancelled.rows == []
    assert "cancelled" in cancelled.problems[0].message


# --- transformers ---------------------------------------------------------------------------------------------------


def state(*losses: float) -> dict[str, Any]:
    history = [{"step": 10 * i, "loss": 1.0, "epoch": i} for i in range(1, 4)]
    history += [{"step": 10 * i, "eval_loss": v, "eval_runtime": 2.0} for i, v in enumerate(losses, start=1)]
    return {"log_history": history, "global_step": 30}


def test_a_trainer_state_gives_its_last_evaluation(tmp_path: Path) -> None:
    [row] = read_path(write(tmp_path / "trainer_state.json", state(2.0, 1.5))).rows
    assert (row.suite, row.metric, row.value, row.step) == ("trainer", "loss", 1.5, 20)
    assert (row.higher_is_better, row.stderr, row.n) == (False, None, None)


def test_of_the_checkpoints_of_a_run_only_the_latest_is_read(tmp_path: Path) -> None:
    for step, loss in ((9, 3.0), (10, 2.0), (100, 1.0)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        write(folder / "trainer_state.json", state(loss))
    [row] = read_path(tmp_path).rows
    assert row.value == 1.0


def test_eval_results_name_the_number_of_samples_and_the_dataset(tmp_path: Path) -> None:
    flat = {"eval_math_accuracy": 40.0, "eval_math_runtime": 3.2, "eval_math_samples": 50, "epoch": 1.0}
    write(tmp_path / "eval_results.json", flat)
    write(tmp_path / "all_results.json", flat | {"train_loss": 1.0})
    [row] = read_path(tmp_path).rows
    assert (row.task, row.metric, row.value, row.n) == ("math", "accuracy", 0.4, 50)
    assert row.stderr_derived


def test_settings_of_a_trainer_are_not_taken_for_its_results(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        read_path(write(tmp_path / "training_args.json", {"eval_steps": 500, "eval_batch_size": 8}))


def test_a_diverged_evaluation_is_a_problem_not_a_row(tmp_path: Path) -> None:
    reading = read_path(write(tmp_path / "trainer_state.json", state(2.0, math.nan)))
    assert reading.rows == []
    assert reading.problems[0].key == "eval_loss"


# --- one number a model ---------------------------------------------------------------------------------------------


def test_alpaca_eval_is_in_percent_with_its_standard_error_and_number_of_items(tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.csv"
    path.write_text(
        ",win_rate,standard_error,mode,avg_length,n_wins,n_total,length_controlled_winrate,lc_standard_error\n"
        "org/a,31.2,1.5,community,1800,250,805,29.0,0.4\norg/b,0.9,0.3,community,900,7,805,,\n"
    )
    rows = read_path(tmp_path).rows
    first = only(rows, model="org/a", metric="win_rate")
    assert (first.suite, first.task, first.value, first.stderr, first.n) == (
        "alpaca-eval",
        "alpaca_eval",
        pytest.approx(0.312),
        0.015,
        805,
    )
    assert only(rows, metric="length_controlled_winrate").stderr == 0.004
    assert only(rows, model="org/b", metric="win_rate").value == pytest.approx(0.009)  # percent, though it is below 1
    assert only(rows, model="org/a", metric="avg_length").value == 1800


def test_opencompass_has_a_column_a_model(tmp_path: Path) -> None:
    path = tmp_path / "summary_20260101_000000.csv"
    path.write_text(
        "dataset,version,metric,mode,base-hf,sft-hf\ngsm8k,1d7fe4,accuracy,gen,45.5,61.0\nmath,-,-,-,-,-\n"
    )
    rows = read_path(tmp_path).rows
    assert [(row.task, row.model, row.value, row.version) for row in rows] == [
        ("gsm8k", "base-hf", 0.455, "1d7fe4"),
        ("gsm8k", "sft-hf", 0.61, "1d7fe4"),
    ]


@pytest.mark.parametrize("inside", [True, False])
def test_the_open_llm_leaderboards_details_hold_their_tasks_in_or_beside_all(tmp_path: Path, inside: bool) -> None:
    scores = {"acc_norm,none": 0.3, "acc_norm_stderr,none": 0.006, "alias": " - leaderboard_bbh"}
    old = {"acc": 0.5, "acc_stderr": 0.01}
    document = (
        {"all": {"leaderboard_bbh": scores}, "leaderboard_bbh": {"acc_norm,none": 0.3}}
        if inside
        else {"all": old, "harness|arc:challenge|25": old}
    )
    [row] = read_path(write(tmp_path / "results_2024-09-01T00-00-00.json", document)).rows
    if inside:
        assert (row.task, row.metric, row.filter, row.value, row.stderr) == ("bbh", "acc_norm", "none", 0.3, 0.006)
    else:
        assert (row.task_raw, row.fewshot, row.value, row.stderr) == ("harness|arc:challenge|25", 25, 0.5, 0.01)


def test_evalplus_answers_pass_the_plus_tests_only_with_the_base_tests(tmp_path: Path) -> None:
    def attempt(base: str, plus: str) -> dict[str, str]:
        return {"task_id": "HumanEval/0", "solution": "def f(): ...", "base_status": base, "plus_status": plus}

    document = {
        "date": "2026-01-01 00:00",
        "eval": {
            "HumanEval/0": [attempt("pass", "pass")],
            "HumanEval/1": [attempt("pass", "fail")],
            "HumanEval/2": [attempt("fail", "pass")],
            "HumanEval/3": [attempt("timeout", "fail")],
        },
    }
    rows = read_path(write(tmp_path / "m_eval_results.json", document)).rows
    base, plus = only(rows, filter="base"), only(rows, filter="plus")
    assert (base.suite, base.task, base.metric, base.value, base.n) == ("evalplus", "humaneval", "pass@1", 0.5, 4)
    assert plus.value == 0.25
    assert samples_of(plus) == {"HumanEval/0": 1.0, "HumanEval/1": 0.0, "HumanEval/2": 0.0, "HumanEval/3": 0.0}


def test_the_bigcode_harness_keeps_its_settings_beside_its_scores(tmp_path: Path) -> None:
    config = {"model": "org/code", "tasks": "humaneval", "temperature": 0.2, "n_samples": 20, "limit": None}
    document = {"humaneval": {"pass@1": 0.33, "pass@10": 0.5}, "config": config}
    rows = read_path(write(tmp_path / "evaluation_results.json", document)).rows
    assert [(row.suite, row.metric, row.value, row.model) for row in rows] == [
        ("bigcode", "pass@1", 0.33, "org/code"),
        ("bigcode", "pass@10", 0.5, "org/code"),
    ]
    assert rows[0].protocol == {"temperature": 0.2, "n_samples": 20}


def test_evalchemy_counts_its_items_and_names_its_standard_error_in_its_own_words(tmp_path: Path) -> None:
    scores = {"num_total": 30, "num_solved": 12.9, "num_repeat": 10, "accuracy_avg": 0.43, "accuracy_std_err": 0.02}
    document = {"model_name": "org/x", "results": {"AIME24": scores}, "n-shot": {"AIME24": 0}}
    [row] = read_path(write(tmp_path / "results_x.json", document)).rows
    assert (row.metric, row.value, row.stderr, row.n) == ("accuracy_avg", 0.43, 0.02, 30)


@pytest.mark.parametrize(("written", "value"), [("0.5", 0.5), (" 5e-1 ", 0.5), ("45.3%", 0.453), (1, 1.0)])
def test_numbers_that_are_written_as_text_are_numbers(tmp_path: Path, written: Any, value: float) -> None:
    document = {"results": {"t": {"acc,none": written, "acc_stderr,none": "N/A"}}, "versions": {"t": 1.0}}
    [row] = read_path(write(tmp_path / "results_x.json", document)).rows
    assert (row.value, row.stderr) == (pytest.approx(value), None)


def test_a_not_a_number_that_is_written_as_text_is_named(tmp_path: Path) -> None:
    document = {"results": {"t": {"acc,none": "NaN"}}, "versions": {"t": 1.0}}
    reading = read_path(write(tmp_path / "results_x.json", document))
    assert not reading.rows and "NaN" in reading.problems[0].message


# --- all ------------------------------------------------------------------------------------------------------------


def test_percentages_become_shares_only_where_a_share_cannot_be_meant(tmp_path: Path) -> None:
    document = {
        "results": {
            "a": {"acc,none": 45.0, "acc_stderr,none": 0.5, "f1,none": 45.0},
            "b": {"acc,none": 0.8, "acc_stderr,none": 0.1},
        },
        "versions": {},
    }
    rows = read_path(write(tmp_path / "results_x.json", document)).rows
    first = only(rows, task="a", metric="acc")
    assert (first.value, first.stderr) == (0.45, 0.005)
    assert first.notes == ("written in percent, divided by 100",)
    assert only(rows, task="b").value == pytest.approx(0.008)
    assert only(rows, metric="f1").value == 45.0


def test_a_folder_gives_the_rows_of_every_harness_and_names_what_is_broken(tmp_path: Path) -> None:
    write_own(tmp_path / "own", [1.0, 0.0])
    write_lm_eval(tmp_path / "lm", [1.0, 0.0])
    write_inspect(tmp_path / "log.eval", inspect_header())
    (tmp_path / "results_broken.json").write_text('{"results": ')
    (tmp_path / "config.json").write_text("{")
    write(tmp_path / "tokenizer.json", {"model": {"vocab": {"results": 1}}})
    reading = read_path(tmp_path)
    assert {row.suite for row in reading.rows} == {"mlintern", "lm-eval", "inspect"}
    [problem] = reading.problems
    assert problem.source.endswith("results_broken.json")
    assert "line 1, column" in problem.message


def test_a_folder_without_results_is_not_found(tmp_path: Path) -> None:
    write(tmp_path / "config.json", {"hidden_size": 64})
    with pytest.raises(NotFound):
        read_path(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "{'a': 1}", "\x00\xff", "[" * 100_000])
def test_what_is_no_result_file_is_refused_with_a_next_step(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput) as caught:
        read_path(path)
    assert str(path) in caught.value.message
    assert caught.value.next_step
