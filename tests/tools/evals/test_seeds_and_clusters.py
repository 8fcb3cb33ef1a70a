"""Items that are alike, several training seeds, the smallest difference to be seen, and what was gained and lost."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

import pytest

from mlintern.common.clock import SystemClock
from mlintern.tools.errors import BadInput
from mlintern.tools.evals.clustered import over_seeds, paired_attempts, paired_in_clusters, swap_test
from mlintern.tools.evals.clusters import attempts_behind
from mlintern.tools.evals.result_rows import EvalRow
from mlintern.tools.evals.service import EvalService
from mlintern.tools.evals.significance import mcnemar, newcombe, paired, student_t_quantile
from mlintern.tools.jobs.detectable import detectable, items_of, smallest_difference
from mlintern.tools.jobs.hardware import Hardware
from mlintern.tools.jobs.memory import shape_from_name, workload
from mlintern.tools.jobs.timing import evaluation
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.tools.evals.results import write_own


@pytest.mark.parametrize("gains", [[1, 1, 1], [4, -1, 2, 0], [3, 3, 3, -3, 1], [2, 2, -1, -1, -1, 5, 0]])
def test_the_swap_test_counts_every_way_to_swap_the_sides(gains: list[int]) -> None:
    ways = [sum(sign * gain for sign, gain in zip(signs, gains, strict=True)) for signs in _signs(len(gains))]
    assert swap_test(gains) == pytest.approx(sum(abs(one) >= abs(sum(gains)) for one in ways) / len(ways))


def _signs(n: int) -> list[tuple[int, ...]]:
    return list(itertools.product((-1, 1), repeat=n))


def test_of_single_items_the_swap_test_is_mcnemars() -> None:
    assert swap_test([1] * 14 + [-1] * 4 + [0] * 30) == pytest.approx(mcnemar(4, 14))


def test_clusters_that_never_differ_leave_room_for_doubt() -> None:
    """A standard error of 0 over five clusters of which none was flipped is no certainty."""
    right = [1.0] * 20
    found = paired_in_clusters(right, right, clusters=[str(at // 4) for at in range(20)])
    assert found.p_value == 1.0 and found.delta == 0.0
    low, high = newcombe(5, 0, 0, 0, z=student_t_quantile(4))
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high))
    assert found.ci_low < -0.4


@pytest.mark.parametrize(("items", "attempts", "share"), [(20, 8, 0.98), (50, 8, 0.02), (50, 4, 0.98)])
def test_few_wrong_answers_among_several_to_an_item_are_no_certainty(items: int, attempts: int, share: float) -> None:
    """Shares near 0 or 1 are skewed: a t interval over items holds the truth of these in 90 to 92 % of the draws."""
    source = random.Random(items + attempts)
    other = share - 0.08 if share > 0.5 else share + 0.08
    held = draws = 0
    for _ in range(250):
        sides: list[list[float]] = [[], []]
        for _ in range(items):
            hard = source.gauss(0, 0.6)
            for side, mean in zip(sides, (share, other), strict=True):
                level = NormalDist().inv_cdf(mean) * math.sqrt(1 + 0.36 + 0.25) + hard + source.gauss(0, 0.5)
                right = sum(source.gauss(0, 1) < level for _ in range(attempts))
                side.append(right / attempts)
        found = paired_attempts(*sides, attempts=attempts)
        held += found.ci_low <= other - share <= found.ci_high
        draws += 1
    assert held / draws >= 0.92  # 95 %, less what 250 draws may miss


def test_of_what_scores_are_means_is_told_by_metric_and_scores() -> None:
    named = {"suite": "mlintern", "task": "t", "task_raw": "t", "source": "x", "sha256": "0"}
    row = EvalRow.model_validate({**named, "metric": "avg@4", "value": 0.5, "stderr_derived": False})
    assert attempts_behind(row, [0.25, 1.0, 0.0]) == 4
    assert attempts_behind(row, [0.3, 1.0]) == 1, "a judge's halves are no right or wrong answers"
    assert attempts_behind(row.model_copy(update={"metric": "accuracy"}), [0.25]) == 1
    assert attempts_behind(row.model_copy(update={"metric": "pass@1", "protocol": {"samples": 8}}), [0.125]) == 8
    assert attempts_behind(row.model_copy(update={"metric": "pass@1"}), [0.125]) == 1


def test_copies_of_one_answer_are_worth_one_answer() -> None:
    """Each of 40 items four times over: as wide as the 40 items alone, but for Student's t."""
    source = random.Random(2)
    before, after = ([float(source.random() < 0.5) for _ in range(40)] for _ in range(2))
    alone = paired(before, after)
    four = paired_in_clusters(
        [score for score in before for _ in range(4)],
        [score for score in after for _ in range(4)],
        clusters=[str(at // 4) for at in range(160)],
    )
    assert four.p_value == pytest.approx(alone.p_value)
    assert four.ci_high - four.ci_low == pytest.approx(alone.ci_high - alone.ci_low, rel=0.08)


def test_test_and_interval_over_clusters_never_contradict_each_other() -> None:
    source = random.Random(7)
    for _ in range(300):
        groups, size = source.randint(3, 30), source.randint(2, 6)
        shift = source.uniform(-0.4, 0.4)
        before = [float(source.random() < 0.5) for _ in range(groups * size)]
        after = [float(source.random() < 0.5 + shift) for _ in range(groups * size)]
        found = paired_in_clusters(before, after, clusters=[str(at // size) for at in range(groups * size)])
        assert found.p_value < 0.05 or found.ci_low <= 0 <= found.ci_high
        assert found.p_value >= 0.05 or not found.ci_low < 0 < found.ci_high
        assert found.ci_low <= found.delta <= found.ci_high


def simulate(
    *, seeds: int, items: int, apart: float, of_seed: float, source: random.Random
) -> tuple[list[list[float]], list[list[float]]]:
    hard = [source.gauss(0, 0.7) for _ in range(items)]
    sides = []
    for shift in (0.0, apart):
        own = [source.gauss(0, 0.7) for _ in range(items)]
        side = []
        for _ in range(seeds):
            moved = shift + source.gauss(0, of_seed)
            side.append([float(source.gauss(0, 1) < h + o + moved) for h, o in zip(hard, own, strict=True)])
        sides.append(side)
    return sides[0], sides[1]


def test_the_luck_of_seeds_is_not_taken_for_an_improvement() -> None:
    """Seeds that move the score by 8 points, no true difference: single models say "improved" far too often."""
    source = random.Random(4)
    naive = alarms = 0
    for _ in range(150):
        before, after = simulate(seeds=3, items=300, apart=0.0, of_seed=0.3, source=source)
        naive += paired(before[0], after[0]).p_value < 0.05
        alarms += over_seeds(before, after).p_value < 0.05
    assert naive >= 30
    assert alarms <= 13


def test_a_recipe_that_is_better_is_found_over_its_seeds() -> None:
    source = random.Random(5)
    found = [
        over_seeds(*simulate(seeds=5, items=300, apart=0.6, of_seed=0.1, source=source)).p_value < 0.05
        for _ in range(40)
    ]
    assert sum(found) >= 36


def test_seeds_on_one_text_count_by_the_text() -> None:
    source = random.Random(6)
    before, after = simulate(seeds=3, items=60, apart=0.2, of_seed=0.1, source=source)
    copies = [[score for score in model for _ in range(3)] for model in before]
    others = [[score for score in model for _ in range(3)] for model in after]
    plain = over_seeds(before, after)
    told = over_seeds(copies, others, clusters=[str(at // 3) for at in range(180)])
    blind = over_seeds(copies, others)
    assert told.ci_high - told.ci_low == pytest.approx(plain.ci_high - plain.ci_low, rel=0.1)
    assert blind.ci_high - blind.ci_low < 0.9 * (plain.ci_high - plain.ci_low)


# --- what these items can show --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("items", "disagree"), [(100, 0.2), (200, 0.1), (1000, 0.2)])
def test_the_smallest_difference_is_found_in_four_of_five_cases(items: int, disagree: float) -> None:
    delta = smallest_difference(items, disagree=disagree)
    source = random.Random(items)
    weights = [(disagree + delta) / 2, (disagree - delta) / 2, 1 - disagree]
    found = 0
    for _ in range(500):
        drawn = source.choices((1, -1, 0), weights, k=items)
        found += mcnemar(drawn.count(-1), drawn.count(1)) < 0.05
    assert 0.70 <= found / 500 <= 0.86  # the exact test errs on the safe side


def test_what_items_can_show_is_said_in_points() -> None:
    assert smallest_difference(200, disagree=0.1) == pytest.approx(2.8016 * math.sqrt(0.1 / 200), rel=0.01)
    assert detectable(200).startswith("these 200 items cannot show less than 6.2 points")
    assert smallest_difference(5, disagree=0.1) == 1.0  # five items are never enough for the exact test
    assert math.isclose(smallest_difference(8, disagree=0.1), 0.75)


def test_the_items_of_a_recipe_are_counted(tmp_path: Path) -> None:
    data = tmp_path / "held.jsonl"
    data.write_text('{"question": "a"}\n' * 120 + "\n")
    own = {"trainer": "evaluation", "dataset": str(data)}
    assert items_of(own) == 120
    assert items_of({**own, "limit": 50}) == 50
    assert items_of({**own, "limit": 500}) == 120
    assert items_of({"trainer": "sft", "dataset": "org/d", "evaluation": own}) == 120
    assert items_of({"trainer": "sft", "dataset": str(data), "limit": 10}) is None
    assert items_of({"trainer": "evaluation", "dataset": "org/d"}) is None
    assert items_of({**own, "prepare": "def prepare(row): ..."}) is None


def test_an_evaluation_takes_as_long_as_its_answers_and_items() -> None:
    card = Hardware(name="h100", backend="hf_jobs", accelerator="h100", accelerators=1, accelerator_memory_gib=80)
    shape = shape_from_name("org/model-1.7B")
    assert shape is not None
    recipe = {"trainer": "evaluation", "model": "org/model-1.7B", "kind": "exact_match", "max_new_tokens": 512}
    work, _ = workload(recipe, shape, devices=1)

    def seconds(items: int, **changes: object) -> float:
        found = evaluation({**recipe, **changes}, shape, work, card, items=items, on_gpu=True)
        assert found is not None and found.low <= found.likely <= found.high
        return found.likely

    assert 30 < seconds(200) < 120  # 7 batches of 32 write 512 tokens at about 20 ms each
    assert seconds(400) > 1.7 * seconds(200) > 3 * seconds(200, max_new_tokens=64)
    assert seconds(200, engine="vllm") < seconds(200, scorer="exact")
    assert evaluation({**recipe, "engine": "endpoint"}, shape, work, card, items=200, on_gpu=True) is None


# --- through the service --------------------------------------------------------------------------------------------


def sides(folder: Path, name: str, shares: Sequence[float], *, items: int = 200) -> list[str]:
    source = random.Random(name)
    hard = [random.Random(at).random() for at in range(items)]
    found = []
    for seed, share in enumerate(shares):
        scores = [float(source.gauss(share, 0.15) > level) for level in hard]
        found.append(str(write_own(folder / f"{name}{seed}", scores, model=f"{name}{seed}").parent))
    return found


@pytest.mark.anyio
async def test_several_seeds_a_side_are_compared_as_recipes(
    workspace: Workspace, ledger: Ledger, tmp_path: Path
) -> None:
    service = EvalService(workspace=workspace, ledger=ledger, clock=SystemClock())
    before, after = sides(tmp_path, "a", [0.4, 0.42, 0.38]), sides(tmp_path, "b", [0.6, 0.62, 0.61])
    found = await service.compare(before, after)
    [row] = found.rows
    assert row.verdict == "improved" and "3 of the baseline, 3 of the candidate" in row.method
    assert row.n == 200 and row.baseline == pytest.approx(0.4, abs=0.05)
    assert {report.name for report in found.sources} >= {"baseline 1: local files", "candidate 3: local files"}
    lucky = await service.compare(sides(tmp_path, "c", [0.3, 0.5, 0.4]), sides(tmp_path, "d", [0.7, 0.35, 0.45]))
    assert lucky.rows[0].verdict == "no_evidence"


@pytest.mark.anyio
async def test_one_seed_against_several_says_nothing_of_its_recipe(
    workspace: Workspace, ledger: Ledger, tmp_path: Path
) -> None:
    service = EvalService(workspace=workspace, ledger=ledger, clock=SystemClock())
    found = await service.compare(sides(tmp_path, "a", [0.4, 0.42, 0.38]), sides(tmp_path, "b", [0.7])[0])
    assert any("not about its recipe" in note for note in found.rows[0].notes)


@pytest.mark.anyio
async def test_seeds_without_samples_are_compared_by_their_values(
    workspace: Workspace, ledger: Ledger, tmp_path: Path
) -> None:
    service = EvalService(workspace=workspace, ledger=ledger, clock=SystemClock())
    before, after = sides(tmp_path, "a", [0.4, 0.42, 0.38]), sides(tmp_path, "b", [0.6, 0.62, 0.61])
    (Path(after[1]) / "samples.jsonl").unlink()
    [row] = (await service.compare(before, after)).rows
    assert row.method.startswith("unpaired t-test over 3 and 3 seeds") and row.verdict == "improved"


@pytest.mark.anyio
async def test_a_seed_that_was_measured_otherwise_is_named(
    workspace: Workspace, ledger: Ledger, tmp_path: Path
) -> None:
    service = EvalService(workspace=workspace, ledger=ledger, clock=SystemClock())
    before, after = sides(tmp_path, "a", [0.4, 0.42]), sides(tmp_path, "b", [0.6, 0.62])
    other = Path(after[1]) / "evaluation.json"
    other.write_text(json.dumps({**json.loads(other.read_text()), "fewshot": 5}))
    [row] = (await service.compare(before, after)).rows
    assert row.verdict == "not_comparable" and "source 2 of the candidate" in row.reason and "few-shot" in row.reason
    with pytest.raises(BadInput, match="one of them twice"):
        await service.compare([before[0], before[0]], after)
    with pytest.raises(BadInput, match="names 0 sources"):
        await service.compare(before, [])


@pytest.mark.anyio
async def test_tries_made_elsewhere_are_corrected_for(workspace: Workspace, ledger: Ledger, tmp_path: Path) -> None:
    service = EvalService(workspace=workspace, ledger=ledger, clock=SystemClock())
    base = write_own(tmp_path / "base", [1.0] * 50 + [0.0] * 50).parent
    better = write_own(tmp_path / "better", [1.0] * 58 + [0.0] * 42, model="better").parent
    alone = (await service.compare(str(base), str(better))).rows[0]
    of_ten = (await service.compare(str(base), str(better), tries=10)).rows[0]
    assert alone.verdict == "improved" and of_ten.verdict == "no_evidence"
    assert of_ten.p_adjusted == pytest.approx(10 * (alone.p_value or 0))


@pytest.mark.anyio
async def test_some_of_what_was_gained_and_lost_is_shown(
    workspace: Workspace, ledger: Ledger, tmp_path: Path
) -> None:
    service = EvalService(workspace=workspace, ledger=ledger, clock=SystemClock())
    base = write_own(tmp_path / "base", [1.0] * 10 + [0.0] * 30).parent
    other = write_own(tmp_path / "other", [0.0] * 2 + [1.0] * 28 + [0.0] * 10, model="other").parent
    for folder, word in ((base, "before"), (other, "after")):
        samples = folder / "samples.jsonl"
        rows = [json.loads(line) for line in samples.read_text().splitlines()]
        samples.write_text(
            "".join(
                json.dumps({**one, "question": f"What is {one['id']}?", "gold": "42", "answer": f"{word} " * 200})
                + "\n"
                for one in rows
            )
        )
    [row] = (await service.compare(str(base), str(other))).rows
    assert row.flips is not None
    assert (row.flips.gained, row.flips.lost) == (20, 2)
    assert len(row.flips.some_gained) == 3 and len(row.flips.some_lost) == 2
    shown = row.flips.some_lost[0]
    assert (shown.baseline_score, shown.candidate_score) == (1.0, 0.0)
    assert shown.question == f"What is {shown.id}?"
    assert shown.baseline is not None and shown.baseline.startswith("before") and len(shown.baseline) < 500
    assert shown.candidate is not None and shown.candidate.startswith("after")
