"""Logs hold whatever a script printed: no row of numbers, however odd, keeps a run from being judged."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlintern.tools.errors import BadInput
from mlintern.tools.health.diagnose import diagnose, diagnose_source
from mlintern.tools.health.series import build
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace

NAMES = [
    *("loss", "eval_loss", "eval_reward", "grad_norm", "learning_rate", "reward", "reward_std", "kl", "entropy"),
    *("frac_reward_zero_std", "completions/mean_length", "completions/clipped_ratio", "rewards/a/mean"),
    *("rewards/format/mean", "rewards/accuracies", "logps/chosen", "clip_ratio/region_mean"),
    "sampling/importance_sampling_ratio/mean",
]
NUMBERS = st.one_of(
    st.floats(),
    st.floats(-10, 10),
    st.sampled_from(
        [0, 0.0, 1, -1, 10**400, -(10**400), 1.7e308, -1.7e308, "NaN", "nan", "Infinity", "1e400", "x", None]
    ),
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"kind": st.just("metrics"), "values": st.dictionaries(st.sampled_from(NAMES), NUMBERS, max_size=6)},
        optional={"step": st.integers(-5, 60) | NUMBERS},
    ),
    max_size=40,
)
SHAPES = st.sampled_from(
    [
        *(lambda i: 1.0, lambda i: i, lambda i: -i, lambda i: 10.0**i, lambda i: 1 / (i + 1), lambda i: 0.0),
        *(lambda i: (-1) ** i * 1e99, lambda i: math.nan if i % 3 else i, lambda i: 1.7e308 if i % 2 else -1.7e308),
    ]
)


@given(rows=ROWS)
@settings(max_examples=200, deadline=None)
def test_any_rows_are_judged(rows: list[dict[str, object]]) -> None:
    found = diagnose(rows)
    assert found.steps_read == len(rows)
    json.loads(found.model_dump_json())


@given(curves=st.dictionaries(st.sampled_from(NAMES), SHAPES), count=st.integers(1, 130))
@settings(max_examples=200, deadline=None)
def test_any_whole_curves_are_judged(curves: dict[str, object], count: int) -> None:
    rows = [
        {"kind": "metrics", "step": step, "values": {name: shape(step) for name, shape in curves.items()}}  # type: ignore[operator]
        for step in range(count)
    ]
    assert diagnose(rows).steps_read == count


def test_a_number_that_no_tensor_holds_counts_as_infinite() -> None:
    found = diagnose([{"kind": "metrics", "step": step, "values": {"loss": 1e308}} for step in range(4)])
    assert [finding.kind for finding in found.findings] == ["nan_or_inf"]


@pytest.mark.parametrize("step", ["NaN", "Infinity", 10**400, None, "soon"])
def test_a_row_with_an_impossible_step_stands_at_its_place_among_the_rows(step: object) -> None:
    rows = [{"kind": "metrics", "step": step, "values": {"loss": 3.0 - place}} for place in range(3)]
    curve = build(rows)["loss"]
    assert (curve.steps, curve.values) == ((1.0, 2.0, 3.0), (3.0, 2.0, 1.0))


@pytest.mark.anyio
async def test_lines_that_no_parser_takes_are_passed_over(
    workspace: Workspace, ledger: Ledger, tmp_path: Path
) -> None:
    good = json.dumps({"kind": "metrics", "step": 1, "values": {"loss": 1.0}})
    lines = tmp_path / "metrics.jsonl"
    lines.write_text("\n".join([good, '{"n": ' + "1" * 5000 + "}", '{"a":' * 100_000, "{", good]))
    assert (await diagnose_source(str(lines), workspace=workspace, ledger=ledger)).steps_read == 2
    printed = tmp_path / "log.txt"
    printed.write_text(
        "{'loss': 1.0, 'epoch': 1}\n{'loss': " + "-" * 50_000 + "1, 'epoch': 2}\n{'loss': " + "(" * 5_000 + "}\n"
    )
    assert (await diagnose_source(str(printed), workspace=workspace, ledger=ledger)).steps_read == 1


@pytest.mark.anyio
async def test_a_state_with_a_number_of_five_thousand_digits_is_refused_with_words(
    workspace: Workspace, ledger: Ledger, tmp_path: Path
) -> None:
    state = tmp_path / "trainer_state.json"
    state.write_text('{"log_history": [{"step": ' + "1" * 5000 + "}]}")
    with pytest.raises(BadInput, match="not valid JSON"):
        await diagnose_source(str(state), workspace=workspace, ledger=ledger)
