"""A scripted Messages API server on a real loopback socket, with a say over every byte of its answers.

    with MessagesServer([calls("search", query="x"), overloaded(), says("done")]) as server:
        client = AsyncAnthropic(base_url=server.url, api_key="test")

A script is a sequence of answers or a function from the request's JSON to an answer. The server runs in threads of
its own, so a test's event loop, a subprocess and a blocking client can all talk to it. It counts tokens (four
characters each) and cached prefixes as the real service does, signs thinking over its prefix, makes compaction
blocks, and, while ``strict``, refuses with 400 what the real service refuses.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from mlintern.orchestrator.rehearsal import rules
from mlintern.orchestrator.rehearsal.turns import (
    Answer,
    Compaction,
    EndEarly,
    ErrorEvent,
    Event,
    HttpAnswer,
    Reset,
    Stall,
    Turn,
    error,
    events_of,
)

Script = Sequence[Answer] | Callable[[dict[str, Any]], Answer]
CHARACTERS_PER_TOKEN = 4
SUMMARY = "The work so far, in short: papers were read, one job was started and watched."


@dataclass(frozen=True)
class Recorded:
    """One request as it came in. ``scripted`` is False where the server answered by itself (rules, compaction)."""

    path: str
    headers: dict[str, str]
    body: bytes
    scripted: bool

    @property
    def json(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.body)
        return loaded


class MessagesServer:
    """See the module. ``on_compaction`` answers requests with ``compaction``; by default a block with `SUMMARY`.

    Attributes:
        requests: every POST to ``/v1/messages``, in order of arrival.
        counted: every POST to ``/v1/messages/count_tokens``.
    """

    def __init__(
        self,
        script: Script,
        *,
        strict: bool = True,
        on_compaction: Script | None = None,
        models: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.requests: list[Recorded] = []
        self.counted: list[Recorded] = []
        self.models = list(models)
        self.strict = strict
        self._script = _Player(script)
        self._compactions = _Player(on_compaction or (lambda request: Turn([Compaction(SUMMARY)])))
        self._ids = (f"toolu_{number:04d}" for number in itertools.count(1))
        self._cached: list[str] = []
        self._summarized: set[str] = set()
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.messages = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """The base URL, as ``ANTHROPIC_BASE_URL`` takes it."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def answered(self) -> int:
        """How many answers of the script were given."""
        return self._script.given

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=10)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()

    def answer(self, recorded: Recorded) -> tuple[HttpAnswer | Turn, list[Event]]:
        """The answer to a request, and its events if it is a stream. Serialised: a script has one order."""
        with self._lock:
            request = recorded.json
            if self.strict and (refused := self._refused(recorded, request)) is not None:
                self.requests.append(recorded)
                return refused, []
            parts = rules.parts_of(request)
            marks = rules.prefix_signatures(parts, summarized=self._summarized_by(request))
            refusal = _unbound(request, marks) if self.strict else None
            compacts = "compaction" in request
            self.requests.append(replace(recorded, scripted=not compacts and refusal is None))
            if refusal is not None:
                return error(400, "invalid_request_error", refusal), []
            answer = (self._compactions if compacts else self._script).next(request)
            if isinstance(answer, HttpAnswer):
                return answer, []
            if compacts:
                self._summarized.add(marks[-1])
            message = {
                "id": f"msg_{len(self.requests):04d}",
                "type": "message",
                "role": "assistant",
                "model": request["model"],
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": self._usage(recorded.body, parts, answer),
            }
            return answer, events_of(answer, message=message, ids=self._ids, signature=marks[-1])

    @staticmethod
    def _refused(recorded: Recorded, request: dict[str, Any]) -> HttpAnswer | None:
        if rules.unauthorized(recorded.headers):
            return error(401, "authentication_error", "x-api-key header is required")
        if len(recorded.body) > rules.MAX_BODY_BYTES:
            return error(413, "request_too_large", "Request exceeds the maximum size")
        refusal = rules.complaint(request, recorded.headers)
        return error(400, "invalid_request_error", refusal) if refusal is not None else None

    def count(self, recorded: Recorded) -> dict[str, int]:
        with self._lock:
            self.counted.append(recorded)
        return {"input_tokens": sum(map(tokens, rules.parts_of(recorded.json)))}

    def _usage(self, body: bytes, parts: list[str], turn: Turn) -> dict[str, Any]:
        """Tokens as they would be billed: a cached prefix is read, the rest written if the request asks for it."""
        caching = b'"cache_control"' in body
        shared = len([1 for old, new in _leading_pairs(self._cached, parts)]) if caching else 0
        fresh = sum(map(tokens, parts[shared:]))
        if caching:
            self._cached = parts
        one_hour = fresh if caching and re.search(rb'"ttl":\s*"1h"', body) else 0
        written = fresh if caching else 0
        return {
            "input_tokens": 0 if caching else fresh,
            "cache_read_input_tokens": sum(map(tokens, parts[:shared])),
            "cache_creation_input_tokens": written,
            "cache_creation": {
                "ephemeral_5m_input_tokens": written - one_hour,
                "ephemeral_1h_input_tokens": one_hour,
            },
            "output_tokens": max(1, sum(tokens(repr(block)) for block in turn.blocks)),
            **turn.usage,
        }

    def _summarized_by(self, request: dict[str, Any]) -> str | None:
        """The signature of the compaction block that the messages begin with, if it is one of ours."""
        messages = request["messages"]
        first = rules.blocks_of(messages[0])[0] if messages and messages[0]["content"] else {}
        signature = first.get("signature")
        return signature if first.get("type") == "compaction" and signature in self._summarized else None


def _unbound(request: dict[str, Any], marks: list[str]) -> str | None:
    """The complaint about the first thinking block of ours that does not stand where it was thought."""
    for index, message in enumerate(request["messages"]):
        for block in rules.blocks_of(message):
            ours = block["type"] == "thinking" and block["signature"].startswith("sig_")
            if ours and block["signature"] != marks[index]:
                return f"messages.{index}: `thinking` block is bound to a different conversation"
    return None


class _Player:
    """Gives a script's answers one after the other."""

    def __init__(self, script: Script) -> None:
        self.given = 0
        self._script = script

    def next(self, request: dict[str, Any]) -> Answer:
        self.given += 1
        if callable(self._script):
            return self._script(request)
        if self.given > len(self._script):
            return error(418, "script_exhausted", f"The script has {len(self._script)} answers; this is one more.")
        return self._script[self.given - 1]


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    messages: MessagesServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/v1/models"):
            found = [each for each in self.server.messages.models if self.path.endswith(f"/{each['id']}")]
            whole = {"data": self.server.messages.models, "has_more": False, "first_id": None, "last_id": None}
            if self.path.split("?")[0] in ("/v1/models", "/v1/models/") or found:
                self._whole(HttpAnswer(200, json.dumps(found[0] if found else whole).encode()))
                return
        self._whole(error(404, "not_found_error", f"{self.path} does not exist"))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        recorded = Recorded(self.path, headers, body, scripted=False)
        match self.path.split("?")[0]:
            case "/v1/messages":
                answer, events = self.server.messages.answer(recorded)
                if isinstance(answer, HttpAnswer):
                    self._whole(answer)
                else:
                    self._stream(answer, events)
            case "/v1/messages/count_tokens":
                self._whole(HttpAnswer(200, json.dumps(self.server.messages.count(recorded)).encode()))
            case _:
                self._whole(error(404, "not_found_error", f"{self.path} does not exist"))

    def _whole(self, answer: HttpAnswer) -> None:
        self.send_response(answer.status)
        for name, value in {"content-type": answer.content_type, **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _stream(self, turn: Turn, events: list[Event]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("request-id", f"req_{len(self.server.messages.requests):04d}")
        if turn.form.chunked:
            self.send_header("transfer-encoding", "chunked")
        else:
            self.close_connection = True
            self.send_header("connection", "close")
        self.end_headers()
        try:
            self._send_events(turn, events)
        except OSError:  # the client went away: a test's cancellation or timeout
            self.close_connection = True

    def _send_events(self, turn: Turn, events: list[Event]) -> None:
        fault = turn.fault
        for name, data in events if fault is None else events[: fault.after]:
            self._send(turn, as_bytes(name, data, turn=turn))
        match fault:
            case Reset(graceful=graceful):
                self._break_off(graceful=graceful)
                return
            case Stall(pings=pings):
                while not self._client_left(pings or 0.05) and not self.server.messages.closing.is_set():
                    if pings is not None:
                        self._send(turn, as_bytes("ping", {"type": "ping"}, turn=turn))
                self.close_connection = True
                return
            case ErrorEvent(type=type, message=message):
                detail = {"type": type, "message": message}
                self._send(turn, as_bytes("error", {"type": "error", "error": detail}, turn=turn))
            case EndEarly() | None:
                pass
        if turn.form.done_line:
            self._send(turn, b"data: [DONE]\n\n")
        if turn.form.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, turn: Turn, data: bytes) -> None:
        size = turn.form.piece_bytes or len(data)
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if turn.form.chunked else piece)
            self.wfile.flush()

    def _break_off(self, *, graceful: bool) -> None:
        if not graceful:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self.wfile.write(b"ff\r\nevent: content")  # a chunk that promises more than comes
        self.close_connection = True
        self.rfile.close()
        self.connection.close()

    def _client_left(self, seconds: float) -> bool:
        self.connection.settimeout(seconds)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return False
        except OSError:
            return True


def as_bytes(name: str, data: dict[str, Any], *, turn: Turn) -> bytes:
    """One event on the wire."""
    lines = [f"data: {json.dumps(data, ensure_ascii=False)}", "", ""]
    if turn.form.event_lines:
        lines.insert(0, f"event: {name}")
    return ("\r\n" if turn.form.crlf else "\n").join(lines).encode()


def tokens(text: str) -> int:
    """A rough count, the same for every text of the same length."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _leading_pairs(old: list[str], new: list[str]) -> list[tuple[str, str]]:
    return list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
