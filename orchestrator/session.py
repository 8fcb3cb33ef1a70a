"""The session on disk: everything that happened, one JSON line each, written before it is acted on.

``<sessions>/<id>/events.jsonl`` is only ever appended to, one ``O_APPEND`` write an event, under a lock that the
kernel drops when the process dies. What was written outlives a kill of the process. Against a power cut the file is
fsynced with every event that something irreversible follows (`MUST_BE_DURABLE`), which covers all events before it.
Beside it lie ``results/`` (what was too large for the model) and the logs of the MCP servers. The events:

    session_start  model, profile, base_url, system, tools, settings, version
    user           text, by                                "loop" where the loop itself says it
    request        turn, model, worst_usd
    side_request   what, model, worst_usd                  a call beside the turns: a compaction's, a sub-agent's
    reply          turn, blocks, stop_reason, usage, request_id, model
    discarded      turn, stop_reason, usage, why           a reply that is not part of the history
    spend          usd, usage, what                        every settlement, whatever became of the call; what is
                                                           "turn", that of the side_request, or "lost": all open
    retry          error, attempt, wait_seconds
    tool_start     id, name, side_effect, arguments_sha256, server
    tool_end       id, name, content, is_error, unknown, seconds
    results        notes                                   the turn's results are complete; notes go into the last one
    guard          level, pattern, text
    approval       tool, message, approved, note, via
    compaction     messages, summary, before_tokens, after_tokens, method
    interrupt      by
    resume         model, unknown                          ids of calls whose outcome nobody knows
    stop           name, reason, exit_code
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mlintern.common.clock import Clock
from mlintern.common.files import exclusive_lock, sync_folder
from mlintern.orchestrator.errors import OrchestratorError

VERSION = 1
EVENTS = "events.jsonl"
MUST_BE_DURABLE = frozenset(
    {
        "session_start",
        "user",
        "request",
        "side_request",
        "approval",
        "tool_start",
        "compaction",
        "resume",
        "interrupt",
        "stop",
    }
)
"""After these money is spent, a tool acts, a person was asked, or nothing may come for long."""


class SessionError(OrchestratorError):
    """The session cannot be used: not there, held by another process, damaged, or from a newer version."""


def sessions_folder() -> Path:
    """``$MLINTERN_SESSIONS``, else ``mlintern/sessions`` in ``$XDG_DATA_HOME`` (``~/.local/share``)."""
    named = os.environ.get("MLINTERN_SESSIONS")
    if named:
        return Path(named).expanduser().absolute()
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser().absolute() / "mlintern" / "sessions"


class Session:
    """An open session, ours alone until `close`. `ports.Journal`."""

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        self.folder = folder
        self._clock = clock
        self._stack = contextlib.ExitStack()
        self._descriptor = -1

    @classmethod
    def create(cls, root: Path, *, clock: Clock) -> Self:
        """A new session below ``root``; its id sorts by time."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(clock.now()))
        session = cls(root / f"{stamp}-{secrets.token_hex(3)}", clock=clock)
        session.folder.mkdir(parents=True, mode=0o700)
        session._open()
        return session

    @classmethod
    def open(cls, root: Path, session_id: str, *, clock: Clock) -> Self:
        """The session ``session_id``, or the only one that begins so; a line cut by a crash is taken off its end.

        Raises:
            SessionError: there is none, more than one, or another process has it.
        """
        session = cls(find(root, session_id), clock=clock)
        session._open()
        session._cut_back_to_last_whole_event()
        return session

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def append(self, kind: str, **fields: Any) -> None:
        """Write one event; what it announces may be done when this returns.

        Raises:
            OSError: it could not be written. Nothing that depends on it may happen.
        """
        data = _line(kind, fields, self._clock)
        whole = os.fstat(self._descriptor).st_size
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, whole)  # a full disk: half a line would spoil what comes after it
            raise
        if kind in MUST_BE_DURABLE and fields.get("side_effect") != "read_only":
            os.fsync(self._descriptor)

    def child(self, name: str) -> ChildJournal:
        """A journal for a sub-agent, in a file of its own in this session's folder."""
        return ChildJournal(self.folder / f"{name}.jsonl", clock=self._clock)

    def close(self) -> None:
        self._stack.close()

    def remove_if_empty(self) -> None:
        """Leave no trace of a run that ended before it began: an unknown price, an address where nothing answers."""
        if not (self.folder / EVENTS).stat().st_size:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        if not self._stack.enter_context(exclusive_lock(self.folder / "lock", blocking=False)):
            self._stack.close()
            raise SessionError(f"The session {self.id} is in use by another process.")
        path = self.folder / EVENTS
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._stack.callback(os.close, self._descriptor)
        sync_folder(self.folder)

    def _cut_back_to_last_whole_event(self) -> None:
        """Take off the end what a crash, a power cut or a full disk left there: half a line, lines of no JSON."""
        end = os.fstat(self._descriptor).st_size
        keep = end
        while keep:
            start = self._start_of_last_line(keep)
            line = os.pread(self._descriptor, keep - start, start)
            if line.endswith(b"\n") and _is_event(line):
                break
            keep = start
        if keep < end:
            os.ftruncate(self._descriptor, keep)

    def _start_of_last_line(self, end: int) -> int:
        start = end - 1
        while start > 0:
            step = min(start, 65536)
            newline = os.pread(self._descriptor, step, start - step).rfind(b"\n")
            if newline >= 0:
                return start - step + newline + 1
            start -= step
        return 0


class ChildJournal:
    """`ports.Journal` of a sub-agent: the same lines, without a lock of its own and without fsync."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def append(self, kind: str, **fields: Any) -> None:
        with self._path.open("ab") as file:
            file.write(_line(kind, fields, self._clock))


def _line(kind: str, fields: Mapping[str, Any], clock: Clock) -> bytes:
    event = {"v": VERSION, "time": round(clock.now(), 3), "kind": kind, **fields}
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"), default=str) + "\n"
    return text.encode("utf-8", "surrogatepass")


def _is_event(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8", "surrogatepass"))["kind"], str)
    except (ValueError, KeyError, TypeError):
        return False


def find(root: Path, session_id: str) -> Path:
    """The folder of the session that ``session_id`` names or uniquely begins.

    Raises:
        SessionError: none or several do.
    """
    found = sorted(folder for folder in root.glob(f"{session_id}*") if (folder / EVENTS).is_file())
    exact = [folder for folder in found if folder.name == session_id]
    if len(exact or found) != 1:
        why = f"{len(found)} sessions begin with" if found else "there is no session"
        raise SessionError(f"{why} {session_id!r} in {root}. See: mlintern-orchestrate sessions".capitalize())
    return (exact or found)[0]


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """The events of a session, oldest first; a last line that was cut by a crash is left out.

    Raises:
        SessionError: a line in the middle is damaged, or is of a newer version.
    """
    with (folder / EVENTS).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                event = json.loads(line.decode("utf-8", "surrogatepass"))
                version = event["v"]
            except (ValueError, KeyError, TypeError) as error:
                raise SessionError(f"{folder / EVENTS}, line {number} is damaged: {error}.") from error
            if version > VERSION:
                raise SessionError(
                    f"The session {folder.name} was written by a newer mlintern; upgrade to resume it."
                )
            yield event


@dataclass(frozen=True, kw_only=True)
class SessionSummary:
    """A line of ``mlintern-orchestrate sessions``."""

    id: str
    started: float
    goal: str
    model: str
    turns: int
    usd: float
    ended: str


def list_sessions(root: Path) -> list[SessionSummary]:
    """All sessions below ``root`` in which something happened, newest first. Damaged ones are listed as such."""
    found = (path for path in root.glob(f"*/{EVENTS}") if path.stat().st_size)
    folders = sorted((path.parent for path in found), reverse=True)
    return [_summary(folder) for folder in folders]


def _summary(folder: Path) -> SessionSummary:
    started, goal, model, turns, usd, ended = 0.0, "", "", 0, 0.0, "open"
    try:
        for event in read_events(folder):
            started = started or event["time"]
            match event["kind"]:
                case "session_start":
                    model = event.get("model", "")
                case "user" if event.get("by") != "loop":
                    goal = goal or event["text"]
                case "reply":
                    turns, ended = turns + 1, "open"
                case "spend":
                    usd += event["usd"] or 0.0
                case "stop":
                    ended = event["name"]
    except SessionError:
        ended = "damaged"
    return SessionSummary(id=folder.name, started=started, goal=goal, model=model, turns=turns, usd=usd, ended=ended)
