"""What is compared together: odd rows, groups, clusters, several candidates, and intervals that fit the test."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from mlintern.common.clock import SystemClock
from mlintern.tools.evals.clustered import paired_in_clusters
from mlintern.tools.evals.clusters import find_clusters
from mlintern.tools.evals.compare import compare_rows
from mlintern.tools.evals.comparison_results import ComparedRow
from mlintern.tools.evals.names import direction_of_score
from mlintern.tools.evals.read_files import read_path
from mlintern.tools.evals.result_rows import EvalRow, Sample
from mlintern.tools.evals.service import EvalService
from mlintern.tools.evals.significance import mcnemar, newcombe, paired
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.tools.evals.results import row, write_own
from tests.tools.evals.test_compare import compare_one, from_sides, scored, without_samples


def named(name: str, **changes: object) -> EvalRow:
    return row(task=name, task_raw=name, **changes)


def by_label(rows: Sequence[ComparedRow]) -> dict[tuple[str, str], ComparedRow]:
    return {(one.task, one.metric): one for one in rows}


# --- one odd row ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    [
        {"metric": "rouge1", "stderr": 0.0, "n": 100, "value": 0.4},
        {"metric": "accuracy", "stderr": 0.0, "n": None, "value": 1.0},
        {"metric": "accuracy", "stderr": None, "n": None, "value": 0.5},
    ],
    ids=["no proportion and no spread", "all right and no n", "nothing known"],
)
def test_one_odd_row_never_takes_the_others(odd: dict[str, object]) -> None:
    sides = [[named("odd", **odd), named("good", value=value)] for value in (0.2, 0.9)]
    rows = by_label(compare_rows(*sides, samples=without_samples).rows)
    assert rows["odd", str(odd["metric"])].verdict == "not_comparable"
    assert "standard error" in rows["odd", str(odd["metric"])].reason
    assert rows["good", "accuracy"].verdict == "improved"


# --- headlines ------------------------------------------------------------------------------------------------------


def test_a_group_is_tested_before_its_members_and_not_beside_them() -> None:
    """One mean of 57 tasks that improved by two standard errors: it stands, and its members wait for it."""
    names = [f"mmlu_{at}" for at in range(57)]
    before = [named("mmlu", stderr=0.01, subtasks=57), *(named(name) for name in names)]
    after = [named("mmlu", stderr=0.01, value=0.53, subtasks=57), *(named(name, value=0.53) for name in names)]
    rows = by_label(compare_rows(before, after, samples=without_samples).rows)
    assert rows["mmlu", "accuracy"].verdict == "improved"
    assert rows["mmlu", "accuracy"].p_adjusted == rows["mmlu", "accuracy"].p_value
    member = rows["mmlu_3", "accuracy"]
    assert member.verdict == "no_evidence" and "Holm over 57; after mmlu / accuracy" in member.method


def test_members_of_a_group_without_evidence_are_not_fished_from() -> None:
    before = [named("mmlu", stderr=0.01, subtasks=20), *(named(f"mmlu_{at}") for at in range(20))]
    after = [named("mmlu", stderr=0.01, subtasks=20), *(named(f"mmlu_{at}") for at in range(20))]
    after[1] = named("mmlu_0", value=0.75)
    rows = by_label(compare_rows(before, after, samples=without_samples).rows)
    assert rows["mmlu_0", "accuracy"].p_value < 0.001  # type: ignore[operator]
    assert rows["mmlu_0", "accuracy"].verdict == "no_evidence"
    assert "only where mmlu / accuracy differs" in rows["mmlu_0", "accuracy"].reason


def test_two_metrics_and_two_filters_of_a_task_count_once() -> None:
    views = [("acc", None), ("acc_norm", None), ("exact_match", "strict-match"), ("exact_match", "flexible-extract")]
    sides = [[named("arc", metric=m, filter=f, value=value) for m, f in views] for value in (0.5, 0.66)]
    rows = compare_rows(*sides, samples=without_samples).rows
    assert [one.p_adjusted for one in rows] == [one.p_value for one in rows]
    assert {one.verdict for one in rows} == {"improved"}


def test_a_secondary_metric_follows_its_headline() -> None:
    sides = [[named("arc", metric="acc", value=a), named("arc", metric="acc_norm", value=0.5)] for a in (0.5, 0.7)]
    rows = by_label(compare_rows(*sides, samples=without_samples).rows)
    assert rows["arc", "acc"].p_value < 0.01  # type: ignore[operator]
    assert rows["arc", "acc"].verdict == "no_evidence"


@pytest.mark.parametrize("weights", ["items", "tasks"])
def test_a_group_is_paired_through_the_samples_of_its_members(weights: str) -> None:
    scores = {
        "g_one": ([0.0] * 60 + [1.0] * 40, [0.0] * 50 + [1.0] * 50),
        "g_two": ([0.0] * 30, [0.0] * 25 + [1.0] * 5),
    }

    def value(side: int) -> float:
        means = [sum(pair[side]) / len(pair[side]) for pair in scores.values()]
        return sum(means) / 2 if weights == "tasks" else sum(sum(pair[side]) for pair in scores.values()) / 130

    def samples(one: EvalRow) -> dict[str, float] | None:
        pair = scores.get(one.task_raw)
        return None if pair is None else {str(at): score for at, score in enumerate(pair[one.model == "b"])}

    sides = [
        [named("g", model=model, value=value(side), subtasks=2, stderr=0.05)]
        + [
            named(name, model=model, value=sum(pair[side]) / len(pair[side]), n=len(pair[side]))
            for name, pair in scores.items()
        ]
        for side, model in enumerate("ab")
    ]
    found = by_label(compare_rows(*sides, samples=samples).rows)["g", "accuracy"]
    assert found.method.startswith("paired over the 130 items of 2 tasks")
    assert found.delta == pytest.approx(value(1) - value(0)) and found.verdict == "improved"


# --- test and interval ----------------------------------------------------------------------------------------------


def test_the_interval_never_contradicts_the_exact_test() -> None:
    contradictions = 0
    for n in (20, 60, 200):
        for lost in range(12):
            for gained in range(20):
                if lost + gained > n:
                    continue
                both = (n - lost - gained) // 2
                cells = [(1.0, 1.0)] * both + [(1.0, 0.0)] * lost + [(0.0, 1.0)] * gained
                cells += [(0.0, 0.0)] * (n - len(cells))
                found = paired([a for a, _ in cells], [b for _, b in cells])
                low, high = newcombe(both, lost, gained, n - both - lost - gained)
                contradictions += (low > 0 or high < 0) and mcnemar(lost, gained) >= 0.05
                assert (found.ci_low > 0 or found.ci_high < 0) <= (found.p_value < 0.05)
                assert found.ci_low <= low + 1e-12 and found.ci_high >= high - 1e-12
    assert contradictions, "without widening there are some"


def test_where_correction_turns_the_verdict_the_reason_says_so() -> None:
    names = [f"task-{at}" for at in range(20)]
    after = [named(name) for name in names]
    after[0] = named("task-0", value=0.66)
    found = compare_rows([named(name) for name in names], after, samples=without_samples).rows[0]
    assert found.ci_low is not None and found.ci_low > 0
    assert "would be more than chance by itself, but not among all that was compared" in found.reason


# --- clusters -------------------------------------------------------------------------------------------------------


def sample(identity: str, **changes: object) -> Sample:
    return Sample.model_validate({"id": identity, "metric": "accuracy", **changes})


def test_clusters_are_found_by_column_by_text_and_by_id() -> None:
    ids = [f"q{at}" for at in range(6)]
    assert find_clusters(ids, [sample(one, prompt=one) for one in ids]) is None
    passages = find_clusters(ids, [sample(one, prompt=one, cluster=str(at // 3)) for at, one in enumerate(ids)])
    assert passages is not None and len(set(passages[0].values())) == 2 and "passage" in passages[1]
    texts = find_clusters(ids, [sample(one, question=str(at // 2)) for at, one in enumerate(ids)])
    assert texts is not None and len(set(texts[0].values())) == 3 and "text" in texts[1]
    attempts = find_clusters([f"q{at}-{k}" for at in range(4) for k in range(3)], None)
    assert attempts is not None and len(set(attempts[0].values())) == 4 and "ids" in attempts[1]


@pytest.mark.parametrize(
    "ids",
    [
        [f"item-{at}" for at in range(40)],
        [f"{at}:a{at}b" for at in range(40)],
        ["a-0", "a-1", "b-0", "c-0", "c-1"],
        ["a-3", "a-7", "b-3", "b-7", "c-3", "c-7"],
    ],
)
def test_ids_that_only_count_the_items_are_no_attempts(ids: list[str]) -> None:
    assert find_clusters(ids, None) is None


def test_pooled_attempts_raise_no_more_false_alarms_than_the_test_allows() -> None:
    """40 questions, 8 attempts each, as hard for one model as for the other; by McNemar it is about 20 %."""
    source = random.Random(5)
    alarms = naive = 0
    for _ in range(200):
        before, after, questions = [], [], []
        for question in range(40):
            hard = [min(1, max(0, source.gauss(0.5, 0.3))) for _ in range(2)]
            before += [float(source.random() < hard[0]) for _ in range(8)]
            after += [float(source.random() < hard[1]) for _ in range(8)]
            questions += [str(question)] * 8
        alarms += paired_in_clusters(before, after, clusters=questions).p_value < 0.05
        naive += paired(before, after).p_value < 0.05
    assert naive >= 30
    assert alarms <= 18


def test_clusters_of_one_item_agree_with_the_paired_test() -> None:
    source = random.Random(1)
    before, after = ([source.random() for _ in range(50)] for _ in range(2))
    one, other = paired_in_clusters(before, after, clusters=[str(at) for at in range(50)]), paired(before, after)
    assert (one.delta, one.p_value, one.ci_low) == pytest.approx((other.delta, other.p_value, other.ci_low))


def test_a_comparison_over_attempts_says_that_they_were_taken_together() -> None:
    before, after = [1.0, 0.0] * 12, [1.0, 1.0] * 12

    def samples(one: EvalRow) -> dict[str, float]:
        return {f"q{at // 4}-{at % 4}": score for at, score in enumerate(before if one.model == "a" else after)}

    found = compare_one(scored("a", before), scored("b", after), samples)
    assert "exact test of swapped clusters and Newcombe interval over 6 clusters of 24 items" in found.method
    assert found.notes == [
        "24 items in 6 clusters, told by ids that number attempts: items of one cluster are alike."
    ]


def test_a_passage_shared_by_questions_is_read_from_the_samples_of_lm_eval(tmp_path: Path) -> None:
    sides = [lm_eval_with_passages(tmp_path / name, right) for name, right in (("a", 1), ("b", 2))]
    [found] = compare_rows(*(read_path(side).rows for side in sides)).rows
    assert "over 10 clusters of 30 items" in found.method


def lm_eval_with_passages(folder: Path, right: int) -> Path:
    folder.mkdir()
    lines = [
        {
            "doc_id": at,
            "doc_hash": f"h{at}",
            "doc": {"passage": f"passage {at // 3}", "question": f"q{at}"},
            "acc": float(at % 3 < right or at % 7 == 0),
            "filter": "none",
        }
        for at in range(30)
    ]
    value = sum(float(str(line["acc"])) for line in lines) / 30
    (folder / "samples_boolq_2026-01-01.jsonl").write_text("\n".join(map(json.dumps, lines)))
    result = {
        "results": {"boolq": {"acc,none": value, "acc_stderr,none": 0.08}},
        "versions": {"boolq": 1},
        "n-samples": {"boolq": {"effective": 30}},
        "config": {"model_args": f"pretrained={folder.name}"},
    }
    (folder / "results_2026-01-01.json").write_text(json.dumps(result))
    return folder


# --- which items ----------------------------------------------------------------------------------------------------


def test_fifty_of_two_hundred_items_are_paired_and_that_is_said() -> None:
    before, after = [0.0] * 25 + [1.0] * 175, [1.0] * 45 + [0.0] * 5
    found = compare_one(scored("a", before), scored("b", after), from_sides(a=before, b=after))
    assert (found.n, found.baseline, found.candidate) == (50, 0.5, 0.9)
    assert found.verdict == "improved" and found.delta == pytest.approx(0.4)
    assert "Only the 50 items that both sides answered" in found.notes[0]


def test_a_different_number_of_items_without_samples_stays_an_obstacle() -> None:
    found = compare_one(row(n=200), row(n=50, value=0.9))
    assert found.verdict == "not_comparable" and "different number of items (200, 50)" in found.reason


# --- several candidates ---------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_each_further_candidate_against_one_baseline_has_to_show_more(
    workspace: Workspace, ledger: Ledger, tmp_path: Path
) -> None:
    service = EvalService(workspace=workspace, ledger=ledger, clock=SystemClock())
    base = write_own(tmp_path / "base", [1.0] * 50 + [0.0] * 50)
    sides = [write_own(tmp_path / f"c{at}", [1.0] * (57 + at) + [0.0] * (43 - at), model=f"c{at}") for at in range(3)]
    found = [await service.compare(str(base.parent), str(side.parent)) for side in (*sides, sides[0])]
    assert [one.rows[0].p_adjusted for one in found] == pytest.approx(
        [one.rows[0].p_value * times for one, times in zip(found, (1, 2, 3, 3), strict=True)]  # type: ignore[operator]
    )
    assert found[0].notes == []
    assert "candidate number 3" in found[2].notes[0] and "times 3" in found[2].rows[0].method


@pytest.mark.parametrize(
    ("metric", "scorer", "better"),
    [
        ("mean", "match", True),
        ("mean", "model_graded_qa", True),
        ("mean", "wer", False),
        ("mean", "toxicity", None),
        ("accuracy", "anything", True),
        ("std", "match", None),
    ],
)
def test_the_mean_of_a_scorer_has_its_direction(metric: str, scorer: str, better: bool | None) -> None:
    assert direction_of_score(metric, scorer=scorer) is better
