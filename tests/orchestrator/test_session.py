"""The session on disk: durable line by line, ours alone, read back to a history that the API takes."""

from __future__ import annotations

import copy
import json
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlintern.orchestrator.export import as_markdown, as_trace
from mlintern.orchestrator.messages import answered
from mlintern.orchestrator.model import ANTHROPIC, COMPATIBLE
from mlintern.orchestrator.recovery import Recovered, adapted, recover
from mlintern.orchestrator.rehearsal.turns import Text, Thinking, ToolUse, Turn, calls, overloaded, says
from mlintern.orchestrator.session import EVENTS, Session, SessionError, list_sessions, read_events
from mlintern.orchestrator.tool import ToolOutcome
from mlintern.orchestrator.tool_results import ReadSavedResult, SavedResults, capped
from tests.clock import FakeClock
from tests.orchestrator.agents import lab, some_tools
from tests.orchestrator.histories import complaint

pytestmark = pytest.mark.anyio


def test_events_come_back_as_they_were_written(tmp_path: Path, clock: FakeClock) -> None:
    with Session.create(tmp_path, clock=clock) as session:
        session.append("user", text='größer 🙂\n"x" \ud800')
        session.append("spend", usd=0.25, usage={}, what="turn")
    first, second = read_events(tmp_path / session.id)
    assert first["text"] == 'größer 🙂\n"x" \ud800'
    assert (second["usd"], second["v"], second["time"]) == (0.25, 1, clock.now())


def test_only_one_process_has_a_session(tmp_path: Path, clock: FakeClock) -> None:
    with (
        Session.create(tmp_path, clock=clock) as session,
        pytest.raises(SessionError, match="in use by another process"),
    ):
        Session.open(tmp_path, session.id, clock=clock)
    Session.open(tmp_path, session.id, clock=clock).close()


def test_a_line_cut_by_a_crash_is_left_out_and_written_over(tmp_path: Path, clock: FakeClock) -> None:
    with Session.create(tmp_path, clock=clock) as session:
        session.append("user", text="whole")
    path = session.folder / EVENTS
    path.write_bytes(path.read_bytes() + b'{"v":1,"kind":"user","text":"ha' + b"l" * 200_000)
    assert [event["text"] for event in read_events(session.folder)] == ["whole"]
    with Session.open(tmp_path, session.id, clock=clock) as again:
        again.append("user", text="next")
    assert [event["text"] for event in read_events(session.folder)] == ["whole", "next"]


def test_a_disk_that_is_full_leaves_no_half_line(tmp_path: Path, clock: FakeClock) -> None:
    session = Session.create(tmp_path, clock=clock)
    session.append("user", text="first")
    whole = (session.folder / EVENTS).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 50, hard))  # the kernel writes 50 bytes, then refuses
    try:
        with pytest.raises(OSError):
            session.append("user", text="x" * 500)
        assert (session.folder / EVENTS).read_bytes() == whole
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    session.append("stop", name="internal_error", reason="disk full", exit_code=1)
    session.close()
    assert [event["kind"] for event in read_events(session.folder)] == ["user", "stop"]


@pytest.mark.parametrize("torn", [b'{"v":1,"time":1,"kind":"us', b"\0\0\0\0\n", b'{"v":1,"ti\n\0\0\n{"half', b"7\n"])
def test_a_torn_end_is_cut_back_to_the_last_whole_event(torn: bytes, tmp_path: Path, clock: FakeClock) -> None:
    with Session.create(tmp_path, clock=clock) as session:
        session.append("user", text="x" * 200_000)
        session.append("user", text="second")
        path = session.folder / EVENTS
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    with Session.open(tmp_path, session.id, clock=clock) as again:
        assert path.read_bytes() == whole
        again.append("user", text="third")
    assert [event["text"][:6] for event in read_events(session.folder)] == ["xxxxxx", "second", "third"]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, clock: FakeClock) -> None:
    with Session.create(tmp_path, clock=clock) as session:
        session.append("user", text="one")
    path = session.folder / EVENTS
    path.write_bytes(b"{broken\n" + path.read_bytes())
    with pytest.raises(SessionError, match="line 1 is damaged"):
        list(read_events(session.folder))
    assert list_sessions(tmp_path)[0].ended == "damaged"


def test_a_session_of_a_newer_version_is_refused(tmp_path: Path, clock: FakeClock) -> None:
    with Session.create(tmp_path, clock=clock) as session:
        pass
    (session.folder / EVENTS).write_text('{"v":99,"kind":"user"}\n')
    with pytest.raises(SessionError, match="newer mlintern"):
        list(read_events(session.folder))


def test_a_session_is_found_by_the_beginning_of_its_id(tmp_path: Path, clock: FakeClock) -> None:
    one = Session.create(tmp_path, clock=clock)
    two = Session.create(tmp_path, clock=clock)
    one.close()
    two.close()
    assert Session.open(tmp_path, one.id, clock=clock).id == one.id
    with pytest.raises(SessionError, match="2 sessions begin with"):
        Session.open(tmp_path, one.id[:8], clock=clock)
    with pytest.raises(SessionError, match="There is no session"):
        Session.open(tmp_path, "nope", clock=clock)


def test_sessions_are_listed_newest_first_with_what_they_were_about(tmp_path: Path, clock: FakeClock) -> None:
    for goal in ("first goal", "second goal"):
        clock.advance(60)
        with Session.create(tmp_path, clock=clock) as session:
            session.append("session_start", model="m")
            session.append("user", text=goal)
            session.append("reply", turn=1, blocks=[], usage={}, stop_reason="end_turn")
            session.append("spend", usd=0.5, usage={}, what="turn")
            session.append("stop", name="done", reason="", exit_code=0)
    newest, oldest = list_sessions(tmp_path)
    assert (newest.goal, oldest.goal) == ("second goal", "first goal")
    assert (newest.turns, newest.usd, newest.ended, newest.model) == (1, 0.5, "done", "m")


# --- killed at any point -------------------------------------------------------------------------------------------


async def a_whole_session(folder: Path) -> list[dict[str, Any]]:
    """The events of a run with everything in it: parallel calls, an error, a retry, guard, compaction, prose."""
    tools = some_tools()
    tools.add("read", lambda arguments: f"{arguments['at']} " * 16_000)
    turns: list[Any] = [
        Turn([Thinking("hm"), Text("so"), ToolUse("look", {"at": 1}), ToolUse("write", {"line": "a"})]),
        overloaded(),
        calls("fail", why="x"),
        *[calls("read", at=number) for number in range(6)],
        calls("update_plan", steps=[{"step": "train", "state": "pending"}]),
        says("I stop."),
        calls("write", line="b"),
        calls("update_plan", steps=[{"step": "train", "state": "done"}]),
        says("done"),
    ]
    clock = FakeClock()
    with Session.create(folder, clock=clock) as session:
        async with lab(turns, tools=tools, compact_at=40_000, journal=session) as agent:
            session.append("session_start", model="claude-sonnet-5-5", profile="anthropic", system="s", tools=[])
            agent.orchestrator.say("the goal")
            stop = await agent.orchestrator.run()
            assert stop.name == "done"
    events = list(read_events(session.folder))
    assert {"retry", "compaction", "tool_start", "results", "stop"} <= {event["kind"] for event in events}
    return events


def finished(found: Recovered) -> list[dict[str, Any]]:
    """The history as the next request would carry it, once the open calls are closed."""
    messages = list(found.messages)
    if found.open_calls is not None:
        batch = found.open_calls.batch()
        for use in found.open_calls.uses:
            batch.outcomes.setdefault(use.id, ToolOutcome.error("unknown"))
        messages.append({"role": "user", "content": batch.results()})
    return messages


def test_what_an_older_version_wrote_is_taken_up_as_the_api_takes_it() -> None:
    usage = {"input_tokens": 1, "output_tokens": 1}
    block = {"type": "compaction", "content": "s", "signature": "x", "encrypted_content": None}
    blank = [{"type": "text", "text": "\n\n"}, {"type": "text", "text": "said"}]
    found = recover(
        [
            {"kind": "compaction", "messages": [{"role": "assistant", "content": [block]}]},
            {"kind": "user", "text": "go"},
            {"kind": "reply", "blocks": blank, "usage": usage, "stop_reason": "end_turn", "turn": 1},
        ]
    )
    assert complaint([*found.messages, {"role": "user", "content": "on"}]) is None
    assert found.messages[0]["content"] == [{"type": "compaction", "content": "s", "signature": "x"}]


async def test_killed_after_any_event_it_has_a_history_that_the_api_takes(tmp_path: Path) -> None:
    events = await a_whole_session(tmp_path)
    spent = 0.0
    for count in range(len(events) + 1):
        found = recover(events[:count])
        messages = finished(found)
        if messages:
            request = messages if messages[-1]["role"] == "user" else [*messages, {"role": "user", "content": "on"}]
            assert complaint(request) is None, f"after event {count}: {events[count - 1]['kind']}"
            assert answered(request) == request
        assert found.usd >= spent
        spent = found.usd
        repeated = found.open_calls.batch().uses if found.open_calls else ()
        begun = {
            event["id"] for event in events[:count] if event["kind"] == "tool_start" and event["name"] == "write"
        }
        if found.open_calls is not None:
            lost = {use.id for use in found.open_calls.unknown}
            for use in repeated:
                runs_again = use.id not in found.open_calls.ended and use.id not in lost
                assert not (runs_again and use.id in begun), "a call with an effect would run twice"


async def test_a_session_that_ended_well_reads_back_to_exactly_its_history(tmp_path: Path) -> None:
    clock = FakeClock()
    with Session.create(tmp_path, clock=clock) as session:
        turn = Turn([Thinking("hm"), ToolUse("look", {"at": 1}), ToolUse("fail", {"why": "x"})])
        async with lab([turn, *[calls("look", at=5)] * 3, says("done")], journal=session) as agent:
            agent.orchestrator.say("go")
            await agent.orchestrator.run()
            expected = copy.deepcopy(agent.messages)
            spent = agent.orchestrator.budget.spent_usd
    found = recover(read_events(session.folder))
    assert json.dumps(found.messages) == json.dumps(expected)
    assert found.usd == pytest.approx(spent)
    assert found.idle and found.open_calls is None and found.lost_usd == 0


def events_until(kind: str, events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    index = next(index for index, event in enumerate(events) if event["kind"] == kind)
    return list(events[: index + 1])


async def test_a_call_under_way_is_paid_for_at_its_worst(tmp_path: Path) -> None:
    events = await a_whole_session(tmp_path)
    found = recover(events_until("request", events))
    assert found.lost_usd == pytest.approx(events_until("request", events)[-1]["worst_usd"])
    assert found.lost_usd > 0
    assert recover(events_until("spend", events)).lost_usd == 0


async def test_after_a_kill_calls_that_never_began_run_and_begun_ones_with_effects_do_not(tmp_path: Path) -> None:
    events = await a_whole_session(tmp_path)
    after_reply = recover(events_until("reply", events))
    assert after_reply.open_calls is not None and after_reply.open_calls.unknown == []
    assert after_reply.open_calls.batch().outcomes == {}
    starts = [
        index for index, event in enumerate(events) if event["kind"] == "tool_start" and event["name"] == "write"
    ]
    begun = recover(events[: starts[0] + 1])
    assert begun.open_calls is not None
    assert [use.name for use in begun.open_calls.unknown] == ["write"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(1, 12), max_size=10))
async def test_a_session_may_be_killed_and_resumed_any_number_of_times(tmp_path: Path, lives: list[int]) -> None:
    """The plan calls `write` three times; however often it is killed, none happens twice and the cost only grows."""
    script = [calls("write", line=str(n)) for n in range(3)]
    done: list[str] = []
    tools = some_tools()
    tools.add("write", lambda arguments: done.append(arguments["line"]) or "ok", side_effect="side_effect")

    def answer(request: dict[str, Any]) -> Any:
        replies = sum(message["role"] == "assistant" for message in request["messages"])
        return script[replies] if replies < len(script) else says("end")

    events: list[dict[str, Any]] = []
    spent = 0.0
    for life in (*lives, 1_000):
        found = recover(events)
        journal = _Dying(events, after=life)
        async with lab(answer, tools=tools, journal=journal) as agent:
            agent.orchestrator.conversation.replace(found.messages)
            if found.idle and found.messages:
                break
            try:
                if found.open_calls is not None:
                    batch = found.open_calls.batch()
                    agent.orchestrator.give_up(batch, found.open_calls.unknown, text="unknown")
                    agent.orchestrator.resume(batch)
                elif not found.messages:
                    agent.orchestrator.say("go")
                await agent.orchestrator.run()
            except _Killed:
                pass
        now = recover(events).usd
        assert now >= spent
        spent = now
        assert len(done) == len(set(done)), "an effect happened twice"
    unknown = [event["id"] for event in events if event["kind"] == "tool_end" and event["unknown"]]
    assert len(done) + len(unknown) >= 3
    assert recover(events).idle


class _Killed(BaseException):
    """The process dies."""


class _Dying:
    """A journal whose process is killed right after some event is on the disk."""

    def __init__(self, events: list[dict[str, Any]], *, after: int) -> None:
        self._events = events
        self._left = after

    def append(self, kind: str, **fields: Any) -> None:
        if self._left == 0:
            raise _Killed
        self._left -= 1
        self._events.append(json.loads(json.dumps({"v": 1, "time": 0.0, "kind": kind, **fields})))


# --- other models, exports, saved results --------------------------------------------------------------------------


def test_for_another_model_thinking_goes_and_a_summary_block_becomes_text() -> None:
    history = [
        {"role": "assistant", "content": [{"type": "compaction", "content": "the summary", "signature": "s"}]},
        {"role": "user", "content": "go on"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "yes"}]},
    ]
    assert adapted(history, same_model=True, profile=ANTHROPIC) == history
    local = adapted(history, same_model=False, profile=COMPATIBLE)
    assert local[0]["role"] == "user" and "the summary" in local[0]["content"][0]["text"]
    assert local[-1]["content"] == [{"type": "text", "text": "yes"}]


async def test_exports_hold_the_session_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrstuvwxyz0123456789")
    clock = FakeClock()
    with Session.create(tmp_path, clock=clock) as session:
        async with lab(
            [calls("look", at="hf_abcdefghijklmnopqrstuvwxyz0123456789"), says("done")], journal=session
        ) as a:
            session.append("session_start", model="m", profile="anthropic", system="s", tools=[], version="0.1.0")
            a.orchestrator.say("the goal")
            await a.orchestrator.run()
    events = list(read_events(session.folder))
    markdown, trace = as_markdown(events), as_trace(events)
    for text in (markdown, trace):
        assert "hf_abcdef" not in text and "the goal" in text and "look" in text
    lines = [json.loads(line) for line in trace.splitlines()]
    assert [line["type"] for line in lines] == ["user", "assistant", "user", "assistant"]
    assert [line["parentUuid"] for line in lines] == [None, *(line["uuid"] for line in lines[:-1])]
    assert len({line["sessionId"] for line in lines}) == 1
    assert lines[2]["message"]["content"][0]["tool_use_id"] == lines[1]["message"]["content"][0]["id"]


async def test_a_saved_result_is_read_page_by_page_and_searched(tmp_path: Path) -> None:
    saved = SavedResults(tmp_path / "results")
    text = "".join(f"line {number}\n" for number in range(30_000))
    (shown,) = capped([{"type": "text", "text": text}], tool="look", saved=saved)
    (file,) = saved.folder.iterdir()
    read = ReadSavedResult(saved)
    first = await read.call({"file": file.name})
    assert first.text.startswith("line 0\n") and "go on with offset=40000" in first.text
    second = await read.call({"file": file.name, "offset": 40_000})
    assert text[40_000:40_050] in second.text
    found = await read.call({"file": file.name, "find": "LINE 29999"})
    assert found.text == "30000: line 29999"
    assert "line 0\n" in shown["text"] and "line 29999" in shown["text"]


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "none", 3, ""])
async def test_only_saved_results_can_be_read(name: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    outcome = await ReadSavedResult(SavedResults(tmp_path / "results")).call({"file": name})
    assert outcome.is_error
