"""A model server that speaks OpenAI's chat completions and Anthropic's Messages, on a real socket.

It refuses what the two references do not list: paths, headers, fields, roles, ranges. Sources: the API references of
OpenAI (POST /chat/completions) and Anthropic (POST /messages, version 2023-06-01).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OPENAI = {"model", "messages", "max_tokens", "temperature", "top_p", "seed"}
MESSAGES = {"model", "messages", "max_tokens", "temperature", "top_p", "system"}


@dataclass
class ChatServer:
    """What the server says and what it was asked. ``failures`` are answered first: (status, headers)."""

    answer: Callable[[str], str]
    key: str = "secret"
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, path: str, headers: Any, body: Any) -> tuple[int, dict[str, str], dict[str, Any]]:
        with self._lock:
            if self.failures:
                status, more = self.failures.pop(0)
                return status, more, {"error": {"message": "try again"}}
            self.asked.append({"path": path, **body})
        refusal = _refusal(path, headers, body, self.key)
        if refusal:
            return refusal[0], {}, {"error": {"message": refusal[1]}}
        text = self.answer(body["messages"][-1]["content"])
        words = text.split()
        cut = len(words) > body["max_tokens"]
        text, used = " ".join(words[: body["max_tokens"]]), min(len(words), body["max_tokens"])
        if path == "/v1/messages":
            part = {"type": "text", "text": text}
            usage = {"input_tokens": 7, "output_tokens": used}
            return 200, {}, {"content": [part], "stop_reason": "max_tokens" if cut else "end_turn", "usage": usage}
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "length" if cut else "stop"}
        return 200, {}, {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": used}}


def _refusal(path: str, headers: Any, body: Any, key: str) -> tuple[int, str] | None:
    if path not in ("/v1/chat/completions", "/v1/messages"):
        return 404, f"no {path}"
    is_openai = path == "/v1/chat/completions"
    given = headers.get("Authorization") == f"Bearer {key}" if is_openai else headers.get("x-api-key") == key
    if not given:
        return 401, "wrong key"
    if not is_openai and headers.get("anthropic-version") != "2023-06-01":
        return 400, "anthropic-version is missing"
    if unknown := sorted(body.keys() - (OPENAI if is_openai else MESSAGES)):
        return 400, f"unknown fields {unknown}"
    roles = [message["role"] for message in body["messages"]]
    if (
        not roles
        or roles[-1] != "user"
        or set(roles) - ({"system", "user", "assistant"} if is_openai else {"user", "assistant"})
    ):
        return 400, f"roles {roles}"
    highest = 2 if is_openai else 1
    if not 0 <= body.get("temperature", 1) <= highest or body["max_tokens"] < 1:
        return 400, "out of range"
    return None


@contextmanager
def serve(server: ChatServer) -> Iterator[ChatServer]:
    """``server`` at a free port of this machine; its ``url`` ends in /v1."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with server._lock:
                server._now += 1
                server.most_at_once = max(server.most_at_once, server._now)
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, said = server.reply(self.path, self.headers, body)
            data = json.dumps(said).encode()
            with server._lock:
                server._now -= 1
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join(timeout=10)
        http.server_close()
