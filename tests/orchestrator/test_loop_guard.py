"""The loop guard on the traces that other agents' detectors miss or misjudge, and its laws."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlintern.orchestrator.loop_guard import LEVELS, LoopGuard, Nudge

POLL = {"poll_job"}
Call = tuple[str, dict[str, Any], str] | tuple[str, dict[str, Any], str, bool]


def fired(calls: Iterable[Call], poll_tools: Iterable[str] = POLL) -> list[tuple[int, str]]:
    """(number of the call, level) of every nudge that the trace provokes."""
    guard = LoopGuard(list(poll_tools))
    found: list[tuple[int, str]] = []
    for number, (name, arguments, result, *error) in enumerate(calls, start=1):
        nudge = guard.observe(name=name, arguments=arguments, result=result, is_error=bool(error and error[0]))
        if nudge is not None:
            found.append((number, nudge.level))
    return found


def first(calls: Iterable[Call], **options: Any) -> int | None:
    return next((number for number, _ in fired(calls, **options)), None)


def cycle(*names: str, rounds: int) -> list[Call]:
    return [(name, {"of": name}, f"result of {name}") for _ in range(rounds) for name in names]


def different(count: int, start: int = 0) -> list[Call]:
    return [
        ("read_file", {"path": f"src/{n}.py"}, f"contents of file number {n}") for n in range(start, start + count)
    ]


# The rows of the comparison with gemini-cli, OpenHands, goose, crush, opencode and ml-intern.


def test_the_same_call_with_the_same_result_fires_at_the_third() -> None:
    assert first([("search", {"query": "dpo", "limit": 5}, "nothing")] * 60) == 3


def test_the_order_of_keys_and_folded_whitespace_hide_nothing() -> None:
    one: Call = ("bash", {"command": "ls  -la\n", "cwd": "/tmp"}, "a b")
    other: Call = ("bash", {"cwd": "/tmp", "command": "ls -la"}, "a  b")
    assert first([one, other, one]) == 3


def test_a_poll_whose_result_changes_is_no_loop() -> None:
    polls: list[Call] = [
        ("poll_job", {"job_id": "j1"}, json.dumps({"state": "running", "progress": {"step": n}})) for n in range(60)
    ]
    assert fired(polls) == []


def test_a_poll_that_stays_running_is_no_loop() -> None:
    assert fired([("poll_job", {"job_id": "j1"}, "RUNNING")] * 15) == []


def test_polling_and_sleeping_in_turns_is_no_loop() -> None:
    pair: list[Call] = [("poll_job", {"job_id": "j1"}, "RUNNING"), ("sleep", {"seconds": 30}, "slept")]
    assert fired(pair * 19) == []


def test_a_poll_of_which_only_the_time_differs_is_no_loop() -> None:
    polls: list[Call] = [("poll_job", {"job_id": "j1"}, f"RUNNING at 2026-11-23T10:00:{n:02d}Z") for n in range(29)]
    assert fired(polls) == []


def test_a_batch_over_sixty_files_is_no_loop() -> None:
    assert fired(different(60)) == []
    written: list[Call] = [("write_file", {"path": f"out/{n}.txt", "text": "x"}, "ok") for n in range(60)]
    assert fired(written) == []


def test_fixing_and_testing_with_new_errors_is_no_loop() -> None:
    calls: list[Call] = []
    for n in range(30):
        calls.append(("edit", {"path": "train.py", "old": f"a{n}", "new": f"b{n}"}, "ok"))
        calls.append(
            ("bash", {"command": "pytest"}, f"train.py:{n + 10}:4: NameError: name 'v{n}' is not defined", True)
        )
    assert fired(calls) == []


def test_paging_through_a_long_list_is_no_loop() -> None:
    pages: list[Call] = [
        ("list_jobs", {"limit": 20, "cursor": f"c{n}"}, f"jobs {n * 20} to {n * 20 + 19}") for n in range(40)
    ]
    assert fired(pages) == []


@pytest.mark.parametrize(
    ("names", "at"),
    [(("a", "b"), 6), (("a", "b", "c"), 9), (tuple("abcd"), 8), (tuple("abcdefg"), 14), (tuple("abcdefgh"), 16)],
)
def test_a_cycle_fires_as_soon_as_it_is_one(names: tuple[str, ...], at: int) -> None:
    assert first(cycle(*names, rounds=10)) == at


def test_the_same_error_under_tiny_changes_of_the_arguments_fires_at_the_fifth() -> None:
    calls: list[Call] = [
        ("bash", {"command": f"python train.py --lr 0.{n}"}, "CUDA out of memory", True) for n in range(9)
    ]
    assert first(calls) == 5


def test_an_error_that_only_echoes_the_changing_argument_is_the_same_error() -> None:
    calls: list[Call] = [
        ("inspect_dataset", {"dataset": f"org/set-{n}x"}, f"Error: org/set-{n}x does not exist", True)
        for n in range(9)
    ]
    assert first(calls) == 5


@pytest.mark.parametrize(
    "varying",
    [
        "done at 2026-11-23 10:00:{n:02d}",
        "done at 10:00:{n:02d}",
        "done in {n}.3 s",
        "took {n} minutes",
        "request req_01ab{n}cd failed",
        "build 8f3ab{n}c9d1 is broken",
        "attempt {n} of many failed",
        "pid {n}1 exited",
        "created 17958{n}21000",
        '{{"ok": false, "elapsed": {n}, "request_id": "x{n}"}}',
        '{{"created_at": "{n}", "error": "full"}}',
    ],
)
def test_a_result_that_differs_only_in_time_duration_id_or_counter_is_the_same(varying: str) -> None:
    assert first([("submit", {"x": 1}, varying.format(n=n)) for n in range(1, 9)]) == 3


@pytest.mark.parametrize(
    "news",
    ["loss 0.{n}", "step {n} of 100", "line {n}: syntax error", "{n} tests failed", '{{"step": {n}}}', "a.py:{n}:1"],
)
def test_other_numbers_are_news(news: str) -> None:
    assert fired([("look", {"x": 1}, news.format(n=n)) for n in range(1, 30)]) == []


def test_a_long_result_counts_as_a_whole() -> None:
    log = "epoch 1 went by without news\n" * 1_000
    assert first([("logs", {}, f"{log} took {n} s {log}") for n in range(9)]) == 3
    assert fired([("logs", {}, f"{log} {'x' * n} {log}") for n in range(9)]) == []


def test_a_cosmetic_argument_does_not_fool_it() -> None:
    calls: list[Call] = [
        ("bash", {"command": "make", "description": f"Build it, try {n}", "reason": "r" * n}, "make: no rule")
        for n in range(9)
    ]
    assert first(calls) == 3


def test_a_remark_is_substance_where_it_is_all_that_a_call_has() -> None:
    assert fired([("add_note", {"note": f"remark {n}"}, "saved") for n in range(30)]) == []


# Waiting for what other people's schedulers run.

SQUEUE = """\
             JOBID PARTITION     NAME     USER ST       TIME  NODES NODELIST(REASON)
               {id}       gpu    train       me {state}       0:00      1 (Priority)"""
LAWFUL_WAITS = [
    json.dumps({"job": {"id": 7, "state": "RUNNING"}}),
    json.dumps({"result": {"jobs": [{"name": "a", "status": {"phase": "Pending"}}]}}),
    json.dumps({"job": {"job_state": "PENDING"}, "retry": None}),
    json.dumps([{"JobState": "x", "state": "CONFIGURING"}]),
    json.dumps({"job": {"retry_after_seconds": 30}}),
    SQUEUE.format(id=42, state="PD"),
    SQUEUE.format(id=42, state="CG"),
    "  42  gpu  train  me  PD  0:00  1 (Resources)",
    "JobID JobName State ExitCode\n----- ------- ----- --------\n42    train   PENDING 0:0",
    "NAME   READY  STATUS             RESTARTS  AGE\npod-1  0/1    ContainerCreating  0         5s",
    "Job 42 is still running.",
    "job_id: 42\nstate: RUNNING\nnode: n1",
    "Status: queued (position 3)",
    "Training is in progress",
]


@pytest.mark.parametrize("answer", LAWFUL_WAITS)
@pytest.mark.parametrize("tool", ["bash", "get_job", "mcp_slurm_queue"])
def test_a_state_nested_in_a_result_or_said_as_text_is_a_lawful_wait(tool: str, answer: str) -> None:
    assert fired([(tool, {"job": "42"}, answer)] * 29) == []
    assert [level for _, level in fired([(tool, {"job": "42"}, answer)] * 200)] == ["hint"]


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps({"job": {"state": "COMPLETED"}}),
        json.dumps({"job": {"id": 7, "reason": "running out of memory"}}),
        SQUEUE.format(id=42, state="F"),
        "Job 42 is finished.",
        "the pending queue of ideas\nis what the paper is about",
        "JOBID PARTITION NAME USER ST TIME NODES NODELIST(REASON)",
    ],
)
def test_what_names_no_state_that_waits_is_none(answer: str) -> None:
    assert first([("bash", {"job": "42"}, answer)] * 9) == 3


@given(
    st.recursive(
        st.sampled_from([{"state": "RUNNING"}, {"status": "queued"}, {"phase": "Pending"}]),
        lambda inner: st.one_of(
            st.dictionaries(st.sampled_from(["job", "result", "data"]), inner, min_size=1, max_size=2),
            st.lists(inner, min_size=1, max_size=2),
        ),
        max_leaves=4,
    )
)
def test_wherever_the_state_stands_waiting_is_never_refused(answer: Any) -> None:
    levels = {level for _, level in fired([("bash", {"command": "status"}, json.dumps(answer))] * 60)}
    assert levels <= {"hint"}


# Circles that are not the same call with the same result.


def papers(order: int, query: str) -> str:
    items = [
        {"paper_id": f"arxiv:{n}", "title": f"On the matter number {n}", "score": 0.9 - order / 100} for n in range(8)
    ]
    return json.dumps({"query": query, "items": items[order % 8 :] + items[: order % 8], "took": order})


def test_reworded_queries_with_the_same_items_are_noticed() -> None:
    words = [
        "small",
        "model",
        "reasoning",
        "gsm8k",
        "recipe",
        "math",
        "distill",
        "sft",
        "grpo",
        "data",
        "tuning",
        "lr",
    ]
    calls: list[Call] = [("search_papers", {"query": word}, papers(n, word)) for n, word in enumerate(words)]
    at = first(calls)
    assert at is not None and at <= 10


def test_a_changing_limit_is_noticed() -> None:
    items = "\n".join(f"run-{n} finished with score 0.{n}1" for n in "abcdef")
    calls: list[Call] = [("list_runs", {"limit": n}, items) for n in range(10, 22)]
    at = first(calls)
    assert at is not None and at <= 10


def test_more_items_under_a_larger_limit_are_news() -> None:
    calls: list[Call] = [
        ("list_runs", {"limit": n}, json.dumps([{"run": f"alpha{k * 7}beta"} for k in range(n)]))
        for n in range(5, 30)
    ]
    assert fired(calls) == []


def test_a_cycle_with_an_odd_call_between_is_noticed() -> None:
    calls: list[Call] = []
    for n in range(8):
        calls += [*cycle("a", "b", rounds=2), ("odd", {"n": n}, f"something else number {n}")]
    at = first(calls)
    assert at is not None and at <= 16


def test_sections_that_are_read_again_are_noticed() -> None:
    sections: list[Call] = [
        (
            "read_paper",
            {"section": n},
            f"Section {n} says at some length that method {n}b beats method {n}c by {n}.5 points",
        )
        for n in range(10)
    ]
    assert fired(sections) == []
    at = first([*sections, *sections])
    assert at is not None and at <= 20


def test_variants_of_a_listing_are_noticed() -> None:
    names = ["train.py", "eval.py", "data", "README.md", "out", "config.toml"]
    commands = [
        "ls",
        "ls -1",
        "ls .",
        "ls ./",
        "ls *",
        "dir",
        "ls -a",
        "echo *",
        "find . -maxdepth 1",
        "ls --color=never",
        "ls -C",
    ]
    calls: list[Call] = [
        ("bash", {"command": command}, ("\n" if n % 2 else "  ").join(names[n % 6 :] + names[: n % 6]))
        for n, command in enumerate(commands)
    ]
    at = first(calls)
    assert at is not None and at <= 10


@pytest.mark.parametrize(
    "failure",
    [
        "RuntimeError: CUDA out of memory. Tried to allocate {n}.25 GiB",
        "loss is NaN after 0.{n}3 epochs",
        "could not open run_{n}.yaml",
        "cannot write checkpoint-{n}00",
    ],
)
def test_errors_that_differ_by_a_float_or_a_counter_in_a_name_have_one_cause(failure: str) -> None:
    calls: list[Call] = [
        ("run", {"command": f"variant {chr(97 + n)}"}, failure.format(n=n), True) for n in range(1, 9)
    ]
    assert first(calls) == 5


@pytest.mark.parametrize(
    "answer",
    [
        {"ok": False, "checks": [{"rule": "pad_token", "severity": "error", "message": "no pad token"}]},
        {"status": "failed", "error": "no pad token"},
        {"result": {"passed": False, "reason": "no pad token"}},
        {"exit_code": 1, "stderr": "Traceback ...\nValueError: no pad token"},
    ],
)
def test_a_failed_check_counts_though_the_call_is_no_error(answer: dict[str, Any]) -> None:
    calls: list[Call] = []
    for n in range(8):
        result = json.dumps({**answer, "script_id": f"{n}abc{n}def{n}12", "at": n})
        calls += [
            ("edit_script", {"new": f"v{n}"}, f"script {n}abc{n}def{n}12 written"),
            ("check_script", {"script_id": f"s{n}"}, result),
        ]
    assert first(calls) == 10, "the fifth failure of one cause"


def test_jobs_that_fail_of_the_same_cause_are_noticed_within_ten() -> None:
    calls: list[Call] = []
    for n in range(10):
        calls += [
            (
                "submit_job",
                {"script_id": f"s{n}", "run_name": f"try-{n}"},
                json.dumps({"job_id": f"job-{n}", "status": "submitted"}),
            ),
            ("poll_job", {"job_id": f"job-{n}"}, json.dumps({"job_id": f"job-{n}", "state": "running", "step": n})),
            (
                "poll_job",
                {"job_id": f"job-{n}"},
                json.dumps({"job_id": f"job-{n}", "state": "failed", "error": f"CUDA out of memory: {n}.5 GiB"}),
            ),
        ]
    at = first(calls)
    assert at == 15, "the fifth job of one cause"


def test_a_success_ends_the_count_of_a_cause() -> None:
    failed: list[Call] = [("check", {"n": n}, json.dumps({"ok": False, "error": "no pad token"})) for n in range(4)]
    passed: list[Call] = [("check", {"n": 99}, json.dumps({"ok": True, "rows": 17, "path": "/x/y"}))]
    assert (
        fired([*failed, *passed, *[(name, {"n": 50 + n}, result) for n, (name, _, result, *_) in enumerate(failed)]])
        == []
    )


def test_failures_of_different_causes_are_no_loop() -> None:
    calls: list[Call] = [
        ("run", {"n": n}, f"NameError: name 'value_{'abcdefghij'[n]}' is not defined", True) for n in range(10)
    ]
    assert fired(calls) == []


def test_a_metric_that_changes_is_news_however_little_it_changes() -> None:
    calls: list[Call] = [
        (
            "read_metrics",
            {"run": "r"},
            json.dumps({"run": "r", "tokens": 512, "name": "x", "gpu": "a", "loss": 1 / n}),
        )
        for n in range(1, 40)
    ]
    assert fired(calls) == []


def test_reading_again_what_was_edited_in_between_is_no_loop() -> None:
    calls: list[Call] = []
    lines = [f"setting_{chr(97 + n)} = value" for n in range(12)]
    for n in range(12):
        lines[n] = f"setting_{chr(97 + n)} = other{n * 13}x"
        calls += [("edit", {"line": n, "text": lines[n]}, "ok"), ("read", {"path": "train.py"}, "\n".join(lines))]
    assert fired(calls) == []


# Streaks, levels, forgetting.


def test_it_says_it_once_a_streak_and_then_escalates() -> None:
    assert fired([("a", {}, "same")] * 60) == [(3, "hint"), (5, "refuse"), (7, "stop")]
    assert [level for _, level in fired(cycle("a", "b", rounds=30))] == list(LEVELS)


def test_after_the_agent_has_moved_on_it_keeps_quiet() -> None:
    assert len(fired([*[("a", {}, "same")] * 3, *different(57)])) == 1


def test_a_new_streak_starts_with_a_hint_again() -> None:
    again: list[Call] = [("a", {}, "same")] * 3
    assert [level for _, level in fired([*again, *different(1), *again])] == ["hint", "hint"]


def test_a_circle_that_keeps_coming_back_is_not_greeted_with_hints_for_ever() -> None:
    calls: list[Call] = []
    for n in range(8):
        calls += [("a", {}, "same"), ("a", {}, "same"), ("a", {}, "same"), *different(1, start=n)]
    levels = [level for _, level in fired(calls)]
    assert levels[:4] == ["hint", "hint", "refuse", "stop"]


def test_a_loop_with_a_regular_interruption_is_a_longer_cycle() -> None:
    calls: list[Call] = [("a", {}, "s"), ("a", {}, "s"), ("a", {}, "s"), ("b", {}, "t")]
    assert (16, "stop") in fired(calls * 6)


def test_a_poll_of_a_job_that_is_over_is_not_exempt() -> None:
    assert first([("poll_job", {"job_id": "j"}, json.dumps({"state": "succeeded"}))] * 9) == 3
    assert first([("poll_job", {"job_id": "j"}, "FAILED")] * 9) == 3


def test_a_state_that_says_running_is_waiting_whatever_the_tool() -> None:
    assert fired([("hub_status", {"id": 1}, json.dumps({"status": "queued", "position": 3}))] * 25) == []


def test_endless_waiting_is_mentioned_once_and_never_refused() -> None:
    assert fired([("poll_job", {"job_id": "j"}, "QUEUED")] * 200) == [(30, "hint")]
    pair: list[Call] = [("poll_job", {"job_id": "j"}, "QUEUED"), ("read_logs", {"job_id": "j"}, "")]
    assert fired(pair * 100) == [(40, "hint")]


def test_polling_is_slowed_until_something_changes() -> None:
    guard = LoopGuard(POLL)
    waits = []
    for _ in range(9):
        waits.append(guard.pause_before(name="poll_job", arguments={"job_id": "j"}))
        guard.observe(name="poll_job", arguments={"job_id": "j"}, result="RUNNING", is_error=False)
    assert waits == [0, 0, 2, 4, 8, 16, 32, 60, 60]
    assert guard.pause_before(name="poll_job", arguments={"job_id": "other"}) == 0
    guard.observe(name="poll_job", arguments={"job_id": "j"}, result="RUNNING step 5", is_error=False)
    assert guard.pause_before(name="poll_job", arguments={"job_id": "j"}) == 0


def test_a_refused_call_is_answered_with_its_earlier_result_until_the_agent_moves_on() -> None:
    guard = LoopGuard()
    for _ in range(5):
        assert guard.refusal(name="a", arguments={"x": 1}) is None
        guard.observe(name="a", arguments={"x": 1}, result="disk full", is_error=True)
    refusal = guard.refusal(name="a", arguments={"x": 1, "reason": "again"})
    assert refusal is not None and "disk full" in refusal
    assert guard.refusal(name="a", arguments={"x": 2}) is None
    guard.observe(name="a", arguments={"x": 1}, result=refusal, is_error=True)
    last = guard.observe(name="a", arguments={"x": 1}, result=refusal, is_error=True)
    assert last is not None and last.level == "stop"
    guard.observe(name="b", arguments={}, result="freed", is_error=False)
    assert guard.refusal(name="a", arguments={"x": 1}) is None


def test_the_same_error_of_one_tool_escalates_only_without_other_work_in_between() -> None:
    contiguous: list[Call] = [("bash", {"command": f"run {n}"}, "Permission denied", True) for n in range(20)]
    assert fired(contiguous) == [(5, "hint"), (8, "refuse"), (11, "stop")]
    mending: list[Call] = []
    for n in range(20):
        mending += [("edit", {"new": f"v{n}"}, "ok"), ("bash", {"command": "pytest"}, "assert 1 == 2", True)]
    assert [level for _, level in fired(mending)] == ["hint"]


def test_equal_calls_of_one_turn_count_once() -> None:
    guard = LoopGuard()
    nudges: list[Nudge | None] = []
    for turn in (1, 2):
        for _ in range(6):
            nudges.append(guard.observe(name="a", arguments={}, result="s", is_error=False, turn=turn))
    assert nudges == [None] * 12
    assert guard.observe(name="a", arguments={}, result="s", is_error=False, turn=3) is not None


def test_near_identical_prose_without_a_call_escalates_and_a_call_resets_it() -> None:
    guard = LoopGuard()
    prose = "I will now continue with the next step of the plan, which is to train the model. Attempt {n}."
    levels = [nudge.level if (nudge := guard.observe_text(prose.format(n=n))) else None for n in range(6)]
    assert levels == [None, None, "hint", "refuse", "stop", None]
    guard.observe(name="a", arguments={}, result="s", is_error=False)
    assert guard.observe_text(prose.format(n=7)) is None


def test_different_prose_is_no_loop() -> None:
    guard = LoopGuard()
    for subject in ("data", "learning rate", "evaluation", "reward model", "tokenizer"):
        assert guard.observe_text(f"Now about the {subject}: {subject[::-1] * 8} and what follows from it.") is None


def test_a_nudge_names_the_pattern_and_speaks_in_the_guards_name() -> None:
    guard = LoopGuard()
    nudge = None
    for name, arguments, result, *_ in cycle("read", "grep", rounds=3):
        nudge = guard.observe(name=name, arguments=arguments, result=result, is_error=False)
    assert nudge is not None
    assert nudge.pattern == "read → grep ×3"
    assert nudge.text.startswith("[mlintern guard]")


def test_after_repeated_errors_the_last_call_is_refused_and_no_other() -> None:
    guard = LoopGuard()
    for n in range(8):
        guard.observe(name="bash", arguments={"command": f"run {n}"}, result="Permission denied", is_error=True)
    assert "Permission denied" in (guard.refusal(name="bash", arguments={"command": "run 7"}) or "")
    assert guard.refusal(name="bash", arguments={"command": "run 6"}) is None


@pytest.mark.parametrize(("between", "level"), [(20, "refuse"), (60, "hint")])
def test_the_third_return_of_a_circle_is_refused_only_while_it_is_remembered(between: int, level: str) -> None:
    circle: list[Call] = [("a", {}, "same")] * 3
    half = between // 2
    calls = [*circle, *different(half), *circle, *different(half, start=500), *circle]
    assert fired(calls)[-1] == (len(calls), level)


@pytest.mark.parametrize(("shared", "noticed"), [(95, True), (80, False)])
def test_prose_is_near_identical_from_nine_tenths_on(shared: int, noticed: bool) -> None:
    guard = LoopGuard()
    nudges = [guard.observe_text("x" * shared + letter * (100 - shared)) for letter in "abc"]
    assert (nudges[-1] is not None) is noticed


@pytest.mark.parametrize(("answer", "at"), [({"retry_after": 5}, None), ({"retry_after": 0}, 3)])
def test_a_result_that_asks_to_come_again_later_is_a_wait(answer: dict[str, Any], at: int | None) -> None:
    assert first([("hub", {"id": 1}, json.dumps(answer))] * 20) == at


def test_forgetting_starts_afresh() -> None:
    guard = LoopGuard()
    for _ in range(6):
        guard.observe(name="a", arguments={}, result="s", is_error=False)
    guard.forget()
    assert guard.refusal(name="a", arguments={}) is None
    assert guard.observe(name="a", arguments={}, result="s", is_error=False) is None


# Laws.

law = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # shared machines are slow machines

scalars = st.one_of(st.integers(), st.booleans(), st.none(), st.text('ab 日\n"{[', max_size=12))
argument_sets = st.dictionaries(st.text("abcxyz", min_size=1, max_size=6), scalars, max_size=6)


@law
@given(argument_sets, st.integers())
def test_shuffled_keys_never_matter(arguments: dict[str, Any], seed: int) -> None:
    guard = LoopGuard()
    nudges = []
    for turn in range(3):
        keys = list(arguments)
        random.Random(seed + turn).shuffle(keys)
        nudges.append(
            guard.observe(name="a", arguments={key: arguments[key] for key in keys}, result="r", is_error=False)
        )
    assert [nudge is not None for nudge in nudges] == [False, False, True]


@law
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 10**6)), max_size=80, unique_by=lambda each: each[1])
)
def test_work_that_never_repeats_a_call_never_fires(work: list[tuple[str, int]]) -> None:
    assert fired([(name, {"item": item}, f"result #{item}") for name, item in work]) == []


@law
@given(
    st.integers(1, 8),
    st.lists(st.integers(1_000, 2_000), max_size=20, unique=True),
    st.data(),
)
def test_every_repetition_with_a_period_up_to_eight_fires_within_its_bound(
    period: int, before: list[int], data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.integers(0, 50), min_size=period, max_size=period, unique=True))
    prefix: list[Call] = [("work", {"item": item}, f"result {item}") for item in before]
    loop: list[Call] = [("step", {"item": item}, f"result {item}") for item in names]
    bound = len(prefix) + period * (3 if period <= 3 else 2)
    levels = fired([*prefix, *loop * 12])
    assert levels[0] == (bound, "hint")
    assert [level for _, level in levels] == list(LEVELS)
